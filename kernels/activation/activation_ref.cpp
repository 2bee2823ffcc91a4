#include "kernels/activation/activation_ref.h"

#include "kernels/common/op.h"

namespace gm::ref {

void activation_forward(const OpCall& c) {
  const double* x = c.in[0].as<double>();
  double* y = c.out[0].as<double>();
  for (int64_t i = 0; i < c.in[0].numel(); ++i) y[i] = act_value(act_of(c.attrs), x[i]);
}

void activation_backward(const OpCall& c) {
  const double *x = c.in[0].as<double>(), *dy = c.dout[0].as<double>();
  double* dx = c.din[0].view.as<double>();
  for (int64_t i = 0; i < c.in[0].numel(); ++i) {
    const double old = c.din[0].mode == GradMode::accumulate ? dx[i] : 0;
    dx[i] = old + dy[i] * act_slope(act_of(c.attrs), x[i]);
  }
}

}  // namespace gm::ref
