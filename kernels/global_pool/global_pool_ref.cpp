#include "kernels/common/op.h"
#include "kernels/global_pool/global_pool.h"

namespace gm::ref {

void global_pool_forward(const OpCall& c) {
  const Shape& s = c.in[0].shape();
  const int64_t hw = s[1] * s[2], channels = s[3];
  const double* x = c.in[0].as<double>();
  double* y = c.out[0].as<double>();
  for (int64_t n = 0; n < s[0]; ++n)
    for (int64_t k = 0; k < channels; ++k) {
      double sum = 0;
      int64_t best = 0;
      auto at = [&](int64_t p) { return x[(n * hw + p) * channels + k]; };
      for (int64_t p = 0; p < hw; ++p) {
        sum += at(p);
        if (at(p) > at(best)) best = p;
      }
      if (pool_kind(c.attrs) == PoolKind::average) {
        y[n * channels + k] = sum / double(hw);
      } else {
        y[n * channels + k] = at(best);
        if (c.saved[0]) c.saved[0].as<int32_t>()[n * channels + k] = static_cast<int32_t>(best);
      }
    }
}

void global_pool_backward(const OpCall& c) {
  if (!c.din[0]) return;
  const Shape& s = c.din[0].view.shape();
  const int64_t hw = s[1] * s[2], channels = s[3];
  const double* dy = c.dout[0].as<double>();
  double* dx = c.din[0].view.as<double>();
  for (int64_t n = 0; n < s[0]; ++n)
    for (int64_t p = 0; p < hw; ++p)
      for (int64_t k = 0; k < channels; ++k) {
        double g = dy[n * channels + k];
        if (pool_kind(c.attrs) == PoolKind::average)
          g /= double(hw);
        else if (c.saved[0].as<int32_t>()[n * channels + k] != p)
          g = 0;
        double& d = dx[(n * hw + p) * channels + k];
        d = (c.din[0].mode == GradMode::accumulate ? d : 0) + g;
      }
}

}  // namespace gm::ref
