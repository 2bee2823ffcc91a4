#include "kernels/spatial_pool/spatial_pool.h"

#include "kernels/common/op.h"

namespace gm::ref {

void spatial_pool_forward(const OpCall& c) {
  const int64_t channels = c.in[0].shape().channels(), pixels = c.in[0].shape().pixels();
  const int average = average_place(c.attrs);
  const double* x = c.in[0].as<double>();
  double* m = c.out[0].as<double>();
  for (int64_t p = 0; p < pixels; ++p) {
    const double* row = x + p * channels;
    double sum = 0;
    int64_t best = 0;
    for (int64_t k = 0; k < channels; ++k) {
      sum += row[k];
      if (row[k] > row[best]) best = k;
    }
    m[2 * p + average] = sum / double(channels);
    m[2 * p + 1 - average] = row[best];
    if (c.saved[0]) c.saved[0].as<int32_t>()[p] = static_cast<int32_t>(best);
  }
}

void spatial_pool_backward(const OpCall& c) {
  if (!c.din[0]) return;
  const int64_t channels = c.din[0].view.shape().channels(), pixels = c.din[0].view.shape().pixels();
  const int average = average_place(c.attrs);
  const double* dm = c.dout[0].as<double>();
  for (int64_t p = 0; p < pixels; ++p)
    for (int64_t k = 0; k < channels; ++k) {
      double g = dm[2 * p + average] / double(channels);
      if (c.saved[0].as<int32_t>()[p] == k) g += dm[2 * p + 1 - average];
      double& d = c.din[0].view.as<double>()[p * channels + k];
      d = (c.din[0].mode == GradMode::accumulate ? d : 0) + g;
    }
}

}  // namespace gm::ref
