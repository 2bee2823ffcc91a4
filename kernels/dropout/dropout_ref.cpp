#include "kernels/common/op.h"
#include "kernels/dropout/dropout.h"

namespace gm::ref {

namespace {
double factor(const OpCall& c, const Shape& shape, int64_t i) {
  const DropoutParams p = dropout_params(c.attrs);
  if (!c.ctx.step) return 1;
  const int64_t unit = shape.numel() / shape[0], draw = p.per_sample ? i / unit : p.shared ? i % unit : i;
  const uint32_t bits = dropout_block(*c.ctx.step, p.stream, draw / 4).v[draw % 4];
  return dropout_keeps(bits, p.rate) ? 1 / (1 - c.attrs.get("rate")) : 0;
}
}  // namespace

void dropout_forward(const OpCall& c) {
  const double* x = c.in[0].as<double>();
  double* y = c.out[0].as<double>();
  for (int64_t i = 0; i < c.in[0].numel(); ++i) y[i] = x[i] * factor(c, c.in[0].shape(), i);
}

void dropout_backward(const OpCall& c) {
  if (!c.din[0]) return;
  const double* dy = c.dout[0].as<double>();
  double* dx = c.din[0].view.as<double>();
  for (int64_t i = 0; i < c.dout[0].numel(); ++i) {
    const double old = c.din[0].mode == GradMode::accumulate ? dx[i] : 0;
    dx[i] = old + dy[i] * factor(c, c.dout[0].shape(), i);
  }
}

}  // namespace gm::ref
