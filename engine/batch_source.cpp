#include "engine/batch_source.h"

#include <algorithm>

#include "kernels/common/error.h"

namespace gm {

void write_targets(const HostBatch& batch, const TensorSpec& spec, void* to) {
  const int64_t n = spec.shape[0];
  const bool hard = spec.dtype == DType::i32;
  GM_CHECK(batch.count <= n && static_cast<int64_t>(hard ? batch.labels.size() : batch.soft_labels.size()) >=
                                   batch.count * (hard ? 1 : spec.shape[1]),
           "a batch of " + std::to_string(batch.count) + " rows has no targets " + spec.str());
  if (hard) {
    auto* labels = static_cast<int32_t*>(to);
    for (int64_t i = 0; i < n; ++i) labels[i] = i < batch.count ? batch.labels[i] : -1;
    return;
  }
  const int64_t classes = spec.shape[1];
  auto* targets = static_cast<float*>(to);
  float* padding = std::copy_n(batch.soft_labels.begin(), batch.count * classes, targets);
  std::fill(padding, targets + n * classes, 0.f);
  for (; padding < targets + n * classes; padding += classes) *padding = -1;
}

}  // namespace gm
