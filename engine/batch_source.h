// What the trainer needs of a data set: batches of pixels and labels, in a reproducible order.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/augment/augment.h"
#include "kernels/common/view.h"

namespace gm {

/// One batch in host memory. `count` rows are real; rows past it are zero padding (only ever in evaluation).
/// Either `pixels` is filled, or, where the device augments, `samples` and `images` are.
struct HostBatch {
  int64_t count = 0;
  std::vector<float> pixels;           // (N, H, W, 3), values 0..255: the model does its own input scaling
  std::vector<AugmentSample> samples;  // (N) what becomes of each image; `offset` is left to the device
  std::vector<std::shared_ptr<const std::vector<uint8_t>>> images;  // (N) RGB; null: on the device already
  std::vector<int32_t> labels;                                      // (N) class index
  std::vector<float> soft_labels;  // (N, classes) rows that sum to 1; empty: labels are all that is known
  std::vector<int64_t> rows;       // (N) row of the sample in the whole data set, for ids and predictions
};

/// What the loss reads of a batch, as the input `spec` of a network takes it: i32 (N) or f32 (N, classes).
/// Rows past batch.count do not count: their label, or the first of their targets, is -1. Throws gm::Error
/// for a batch without what `spec` asks for.
void write_targets(const HostBatch& batch, const TensorSpec& spec, void* to);

/// A finite, ordered sequence of batches. Thread-compatible: one consumer.
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  /// Samples in this source (one epoch visits each at most once).
  virtual int64_t samples() const = 0;
  /// Batches of one epoch. Training leaves out the last ones that fill no batch, or no group of batches that
  /// share an update; evaluating leaves out nothing.
  virtual int64_t batches() const = 0;
  /// Starts epoch `epoch` (0-based; sets order and augmentation) at batch `first_batch` (resume in
  /// mid-epoch).
  virtual void start_epoch(int64_t epoch, int64_t first_batch) = 0;
  /// Fills `batch`; returns false at the end of the epoch. Throws gm::Error when a sample cannot be read.
  virtual bool next(HostBatch& batch) = 0;
  /// Seconds this source made its consumer wait since start_epoch.
  virtual double wait_seconds() const = 0;
};

}  // namespace gm
