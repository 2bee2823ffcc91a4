#include "kernels/spatial_scale/spatial_scale.h"

#include "kernels/common/op.h"

namespace gm::ref {

void spatial_scale_forward(const OpCall& c) {
  const int64_t channels = c.in[0].shape().channels();
  const double *x = c.in[0].as<double>(), *m = c.in[1].as<double>();
  double* y = c.out[0].as<double>();
  for (int64_t i = 0; i < c.in[0].numel(); ++i) y[i] = x[i] * m[i / channels];
}

void spatial_scale_backward(const OpCall& c) {
  const int64_t channels = c.in[0].shape().channels(), pixels = c.in[0].shape().pixels();
  const double *x = c.in[0].as<double>(), *m = c.in[1].as<double>(), *dy = c.dout[0].as<double>();
  for (int64_t p = 0; p < pixels; ++p) {
    double sum = 0;
    for (int64_t i = p * channels; i < (p + 1) * channels; ++i) {
      sum += dy[i] * x[i];
      if (c.din[0]) {
        double& dx = c.din[0].view.as<double>()[i];
        dx = (c.din[0].mode == GradMode::accumulate ? dx : 0) + dy[i] * m[p];
      }
    }
    if (c.din[1]) {
      double& dm = c.din[1].view.as<double>()[p];
      dm = (c.din[1].mode == GradMode::accumulate ? dm : 0) + sum;
    }
  }
}

}  // namespace gm::ref
