#include "engine/batch_source.h"

#include <cstring>

#include "kernels/common/error.h"

namespace gm {

void write_targets(const HostBatch& batch, const TensorSpec& spec, void* to) {
  const int64_t n = spec.shape[0];
  GM_CHECK(static_cast<int64_t>(batch.labels.size()) >= batch.count && batch.count <= n,
           "a batch of " + std::to_string(batch.count) + " rows for targets " + spec.str());
  if (spec.dtype == DType::i32) {
    auto* labels = static_cast<int32_t*>(to);
    for (int64_t i = 0; i < n; ++i) labels[i] = i < batch.count ? batch.labels[i] : -1;
    return;
  }
  const int64_t classes = spec.shape[1];
  const bool soft = !batch.soft_labels.empty();
  auto* targets = static_cast<float*>(to);
  std::memset(targets, 0, spec.bytes());
  for (int64_t i = 0; i < n; ++i) {
    float* row = targets + i * classes;
    if (i >= batch.count)
      row[0] = -1;
    else if (soft)
      std::memcpy(row, &batch.soft_labels[i * classes], static_cast<size_t>(classes) * sizeof(float));
    else
      row[batch.labels[i]] = 1;
  }
}

}  // namespace gm
