#include "kernels/conv2d/conv2d_ref.h"

#include "kernels/activation/activation_ref.h"
#include "kernels/add/add.h"
#include "kernels/common/op.h"
#include "kernels/conv2d/conv2d.h"

namespace gm::ref {

void add_backward(const OpCall&);

void conv2d_forward(const OpCall& c) {
  const ConvGeometry g = conv_geometry(c.attrs, c.in[0], c.in[1]);
  const double *x = c.in[0].as<double>(), *w = c.in[1].as<double>(), *bias = c.in[2].as<double>();
  double* y = c.out[0].as<double>();
  for (int64_t i = 0; i < g.out_pixels() * g.k; ++i) y[i] = bias ? bias[i % g.k] : 0;
  conv_products(g, [&](int64_t xi, int64_t wi, int64_t yi) { y[yi] += x[xi] * w[wi]; });
  const double* residual = conv_residual(c.in).as<double>();
  for (int64_t i = 0; i < g.out_pixels() * g.k; ++i)
    y[i] = act_value(act_of(c.attrs), y[i]) + (residual ? residual[i] : 0);
}

void conv2d_backward(const OpCall& c) {
  if (act_of(c.attrs) != Act::none) fail("conv2d: no gradient through the activation epilogue");
  residual_backward(add_backward, c, 3);
  const ConvGeometry g = conv_geometry(c.attrs, c.in[0], c.in[1]);
  const double *x = c.in[0].as<double>(), *w = c.in[1].as<double>(), *dy = c.dout[0].as<double>();
  auto start = [](const GradView& grad) {
    if (grad.mode == GradMode::overwrite)
      for (int64_t i = 0; i < grad.view.numel(); ++i) grad.view.as<double>()[i] = 0;
    return grad ? grad.view.as<double>() : nullptr;
  };
  double *dx = start(c.din[0]), *dw = start(c.din[1]), *dbias = start(c.din[2]);
  if (dx) conv_products(g, [&](int64_t xi, int64_t wi, int64_t yi) { dx[xi] += dy[yi] * w[wi]; });
  if (dw) conv_products(g, [&](int64_t xi, int64_t wi, int64_t yi) { dw[wi] += dy[yi] * x[xi]; });
  if (dbias)
    for (int64_t i = 0; i < g.out_pixels() * g.k; ++i) dbias[i % g.k] += dy[i];
}

}  // namespace gm::ref
