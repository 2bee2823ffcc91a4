#include "kernels/common/op.h"
#include "kernels/linear/linear.h"

namespace gm::ref {

void linear_forward(const OpCall& c) {
  const LinearShape s = linear_shape(c.in[0], c.in[1]);
  const double *x = c.in[0].as<double>(), *w = c.in[1].as<double>(), *bias = c.in[2].as<double>();
  for (int64_t n = 0; n < s.n; ++n)
    for (int64_t o = 0; o < s.out; ++o) {
      double sum = bias ? bias[o] : 0;
      for (int64_t i = 0; i < s.in; ++i) sum += x[n * s.in + i] * w[o * s.in + i];
      c.out[0].as<double>()[n * s.out + o] = sum;
    }
}

void linear_backward(const OpCall& c) {
  const LinearShape s = linear_shape(c.in[0], c.in[1]);
  const double *x = c.in[0].as<double>(), *w = c.in[1].as<double>(), *dy = c.dout[0].as<double>();
  auto write = [](const GradView& grad, int64_t i, double v) {
    double& to = grad.view.as<double>()[i];
    to = (grad.mode == GradMode::accumulate ? to : 0) + v;
  };
  if (c.din[0])
    for (int64_t n = 0; n < s.n; ++n)
      for (int64_t i = 0; i < s.in; ++i) {
        double sum = 0;
        for (int64_t o = 0; o < s.out; ++o) sum += dy[n * s.out + o] * w[o * s.in + i];
        write(c.din[0], n * s.in + i, sum);
      }
  if (c.din[1])
    for (int64_t o = 0; o < s.out; ++o)
      for (int64_t i = 0; i < s.in; ++i) {
        double sum = 0;
        for (int64_t n = 0; n < s.n; ++n) sum += dy[n * s.out + o] * x[n * s.in + i];
        write(c.din[1], o * s.in + i, sum);
      }
  if (c.din[2])
    for (int64_t o = 0; o < s.out; ++o) {
      double sum = 0;
      for (int64_t n = 0; n < s.n; ++n) sum += dy[n * s.out + o];
      write(c.din[2], o, sum);
    }
}

}  // namespace gm::ref
