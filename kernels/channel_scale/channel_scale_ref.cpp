#include "kernels/channel_scale/channel_scale.h"

#include "kernels/common/op.h"

namespace gm::ref {

void channel_scale_forward(const OpCall& c) {
  const Shape& d = c.in[0].shape();
  const int64_t hw = d[1] * d[2], channels = d[3];
  const double *x = c.in[0].as<double>(), *s = c.in[1].as<double>();
  double* y = c.out[0].as<double>();
  for (int64_t i = 0; i < d.numel(); ++i) y[i] = x[i] * s[i / (hw * channels) * channels + i % channels];
}

void channel_scale_backward(const OpCall& c) {
  const Shape& d = c.in[0].shape();
  const int64_t hw = d[1] * d[2], channels = d[3];
  const double *x = c.in[0].as<double>(), *s = c.in[1].as<double>(), *dy = c.dout[0].as<double>();
  for (int64_t n = 0; n < d[0]; ++n)
    for (int64_t k = 0; k < channels; ++k) {
      double sum = 0;
      for (int64_t p = 0; p < hw; ++p) {
        const int64_t i = (n * hw + p) * channels + k;
        sum += dy[i] * x[i];
        if (c.din[0]) {
          double& dx = c.din[0].view.as<double>()[i];
          dx = (c.din[0].mode == GradMode::accumulate ? dx : 0) + dy[i] * s[n * channels + k];
        }
      }
      if (c.din[1]) {
        double& ds = c.din[1].view.as<double>()[n * channels + k];
        ds = (c.din[1].mode == GradMode::accumulate ? ds : 0) + sum;
      }
    }
}

}  // namespace gm::ref
