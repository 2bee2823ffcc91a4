#include "kernels/global_avg_max_pool/global_avg_max_pool.h"

#include "kernels/common/op.h"

namespace gm::ref {

void global_avg_max_pool_forward(const OpCall& c) {
  const Shape& s = c.in[0].shape();
  const int64_t hw = s[1] * s[2], channels = s[3];
  const double* x = c.in[0].as<double>();
  for (int64_t n = 0; n < s[0]; ++n)
    for (int64_t k = 0; k < channels; ++k) {
      auto at = [&](int64_t p) { return x[(n * hw + p) * channels + k]; };
      double sum = 0;
      int64_t best = 0;
      for (int64_t p = 0; p < hw; ++p) {
        sum += at(p);
        if (at(p) > at(best)) best = p;
      }
      const int64_t i = n * channels + k;
      c.out[0].as<double>()[i] = sum / double(hw);
      c.out[1].as<double>()[i] = at(best);
      if (c.saved[0]) c.saved[0].as<int32_t>()[i] = static_cast<int32_t>(best);
    }
}

void global_avg_max_pool_backward(const OpCall& c) {
  if (!c.din[0]) return;
  const Shape& s = c.din[0].view.shape();
  const int64_t hw = s[1] * s[2], channels = s[3];
  for (int64_t n = 0; n < s[0]; ++n)
    for (int64_t p = 0; p < hw; ++p)
      for (int64_t k = 0; k < channels; ++k) {
        const int64_t i = n * channels + k;
        double g = 0;
        if (c.dout[0]) g += c.dout[0].as<double>()[i] / double(hw);
        if (c.dout[1] && c.saved[0].as<int32_t>()[i] == p) g += c.dout[1].as<double>()[i];
        double& d = c.din[0].view.as<double>()[(n * hw + p) * channels + k];
        d = (c.din[0].mode == GradMode::accumulate ? d : 0) + g;
      }
}

}  // namespace gm::ref
