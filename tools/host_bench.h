// Inference of 8-bit images that lie in the host's memory, beside the rate at which the device takes bytes
// from there: no decoding, everything else of gm_infer.
#pragma once
#include "tools/model_bench.h"

namespace gm {

struct HostBench {
  double images_per_second = 0;
  double bytes_per_second = 0;   // of images, in that run
  double upload_per_second = 0;  // bytes a second of uploads alone, from page-locked memory
  bool captured = false;         // steps ran as a CUDA graph
  double share() const { return bytes_per_second / upload_per_second; }
};

/// Square images of `side` px, resized by the device to the network's input; two batches of different images
/// take turns. Each is copied into page-locked memory, uploaded, resized and classified, and its logits come
/// back to the host.
HostBench time_from_host(Device& device, const Architecture& a, const ModelBenchOptions& options, int side);

}  // namespace gm
