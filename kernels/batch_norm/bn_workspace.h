// How much scratch a BN needs: shared by the descriptions (planned memory) and the kernels (its layout).
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/common/ceil_div.h"
#include "kernels/common/context.h"
#include "kernels/common/view.h"

namespace gm {

/// CPU: chunks of whole units (pixels, or images where an op needs them whole) whose partial sums are
/// combined in index order. Borders depend on shapes only, never on the number of threads.
struct BnChunks {
  int64_t units = 0, rows_per_unit = 1, count = 1;
  int64_t begin(int64_t i) const { return units * i / count; }
  int64_t rows(int64_t i) const { return (begin(i + 1) - begin(i)) * rows_per_unit; }
};
/// About 192 KB a chunk: with a second tensor of the same size that is well inside any L2. At most 256.
inline BnChunks bn_chunks(int64_t units, int64_t rows_per_unit, size_t bytes_per_unit) {
  const int64_t per_chunk =
      std::max<int64_t>(1, (192 << 10) / static_cast<int64_t>(std::max<size_t>(1, bytes_per_unit)));
  return {units, rows_per_unit, std::clamp<int64_t>(ceil_div(units, per_chunk), 1, 256)};
}
/// Chunks of a tensor: whole images when each needs its own pooled row, else any run of pixels.
inline BnChunks bn_chunks_of(const TensorSpec& x, bool whole_images) {
  const int64_t pixels = x.shape.pixels(), per_unit = whole_images ? pixels / x.shape[0] : 1;
  return bn_chunks(pixels / per_unit, per_unit, x.bytes() / (pixels / per_unit));
}

/// CPU layout: partials [chunks][2][C] f64, then coefficients [5][C] f32.
inline size_t bn_cpu_workspace(int64_t chunks, int64_t channels) {
  return static_cast<size_t>(chunks * 2 * channels) * sizeof(double) +
         static_cast<size_t>(5 * channels) * sizeof(float);
}

/// GPU: blocks that share one slice of channels in a two-stage reduction, at most: partials are
/// [kBnGpuBlocks][2][C] f32.
constexpr int64_t kBnGpuBlocks = 256;
/// Vectors of C f32 in front of the partials: the six of BnVectors, and two so that 32 C bytes keep them
/// aligned.
constexpr int64_t kBnGpuVectors = 8;
inline size_t bn_gpu_workspace(int64_t channels) {
  return static_cast<size_t>(kBnGpuBlocks * 2 + kBnGpuVectors) * static_cast<size_t>(channels) *
         sizeof(float);
}

/// drop: the GPU draws each image's factor of stochastic depth behind the rest where forward keeps none.
inline size_t bn_workspace_bytes(Backend backend, const TensorSpec& x, bool whole_images, bool drop = false) {
  const int64_t channels = x.shape.channels();
  if (backend == Backend::cpu) return bn_cpu_workspace(bn_chunks_of(x, whole_images).count, channels);
  return bn_gpu_workspace(channels) + (drop ? static_cast<size_t>(x.shape[0]) * sizeof(float) : 0);
}

}  // namespace gm
