#include <algorithm>
#include <cmath>

#include "kernels/activation/activation.h"
#include "kernels/common/op.h"

namespace gm::ref {

namespace {
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double value(Act act, double x) {
  switch (act) {
    case Act::silu:
      return x * sigmoid(x);
    case Act::relu:
      return std::max(x, 0.);
    case Act::relu6:
      return std::min(std::max(x, 0.), 6.);
    case Act::sigmoid:
      return sigmoid(x);
    case Act::none:
      break;
  }
  return x;
}
double slope(Act act, double x) {
  const double s = sigmoid(x);
  switch (act) {
    case Act::silu:
      return s * (1 + x * (1 - s));
    case Act::relu:
      return x > 0;
    case Act::relu6:
      return x > 0 && x < 6;
    case Act::sigmoid:
      return s * (1 - s);
    case Act::none:
      break;
  }
  return 1;
}
}  // namespace

void activation_forward(const OpCall& c) {
  const double* x = c.in[0].as<double>();
  double* y = c.out[0].as<double>();
  for (int64_t i = 0; i < c.in[0].numel(); ++i) y[i] = value(act_of(c.attrs), x[i]);
}

void activation_backward(const OpCall& c) {
  const double *x = c.in[0].as<double>(), *dy = c.dout[0].as<double>();
  double* dx = c.din[0].view.as<double>();
  for (int64_t i = 0; i < c.in[0].numel(); ++i) {
    const double old = c.din[0].mode == GradMode::accumulate ? dx[i] : 0;
    dx[i] = old + dy[i] * slope(act_of(c.attrs), x[i]);
  }
}

}  // namespace gm::ref
