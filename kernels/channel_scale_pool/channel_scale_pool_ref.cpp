#include "kernels/channel_scale_pool/channel_scale_pool.h"

#include "kernels/common/op.h"

namespace gm::ref {

void channel_scale_pool_forward(const OpCall& c) {
  const Shape& d = c.in[0].shape();
  const int64_t hw = d[1] * d[2], channels = d[3];
  const int average = average_place(c.attrs);
  const double *x = c.in[0].as<double>(), *s = c.in[1].as<double>();
  double *y = c.out[0].as<double>(), *m = c.out[1].as<double>();
  for (int64_t p = 0; p < d[0] * hw; ++p) {
    double* row = y + p * channels;
    double sum = 0;
    int64_t best = 0;
    for (int64_t k = 0; k < channels; ++k) {
      row[k] = x[p * channels + k] * s[p / hw * channels + k];
      sum += row[k];
      if (row[k] > row[best]) best = k;
    }
    m[2 * p + average] = sum / double(channels);
    m[2 * p + 1 - average] = row[best];
    if (c.saved[0]) c.saved[0].as<int32_t>()[p] = static_cast<int32_t>(best);
  }
}

void channel_scale_pool_backward(const OpCall& c) {
  const Shape& d = c.in[0].shape();
  const int64_t hw = d[1] * d[2], channels = d[3];
  const int average = average_place(c.attrs);
  const double *x = c.in[0].as<double>(), *s = c.in[1].as<double>();
  for (int64_t n = 0; n < d[0]; ++n)
    for (int64_t k = 0; k < channels; ++k) {
      double sum = 0;
      for (int64_t p = n * hw; p < (n + 1) * hw; ++p) {
        const int64_t i = p * channels + k;
        double g = c.dout[0] ? c.dout[0].as<double>()[i] : 0;
        if (c.dout[1]) {
          const double* dm = c.dout[1].as<double>() + 2 * p;
          g += dm[average] / double(channels);
          if (c.saved[0].as<int32_t>()[p] == k) g += dm[1 - average];
        }
        sum += g * x[i];
        if (c.din[0]) {
          double& dx = c.din[0].view.as<double>()[i];
          dx = (c.din[0].mode == GradMode::accumulate ? dx : 0) + g * s[n * channels + k];
        }
      }
      if (c.din[1]) {
        double& ds = c.din[1].view.as<double>()[n * channels + k];
        ds = (c.din[1].mode == GradMode::accumulate ? ds : 0) + sum;
      }
    }
}

}  // namespace gm::ref
