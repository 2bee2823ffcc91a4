#include "kernels/add/add.h"
#include "kernels/batch_norm/bn_ref.h"
#include "kernels/common/op.h"
#include "kernels/conv2d/conv2d_ref.h"
#include "kernels/conv_bn_act/conv_bn_act.h"

namespace gm::ref {

void add_backward(const OpCall&);

void conv_bn_act_forward(const OpCall& c) {
  const ConvGeometry g = conv_geometry(c.attrs, c.in[0], c.in[1]);
  const double *x = c.in[0].as<double>(), *w = c.in[1].as<double>();
  double* yc = c.saved[0] ? c.saved[0].as<double>() : c.out[0].as<double>();
  std::fill_n(yc, g.out_pixels() * g.k, 0.);
  conv_products(g, [&](int64_t xi, int64_t wi, int64_t yi) { yc[yi] += x[xi] * w[wi]; });
  bn_forward(bn_parts(c, 2, 1, {g.n, g.oh, g.ow, g.k}, 4), yc, c.state[0].as<double>(),
             c.state[1].as<double>(), c.out[0].as<double>(),
             pool_of(c.attrs) ? c.out[1].as<double>() : nullptr);
}

void conv_bn_act_backward(const OpCall& c) {
  residual_backward(add_backward, c, 4);
  const ConvGeometry g = conv_geometry(c.attrs, c.in[0], c.in[1]);
  const double *x = c.in[0].as<double>(), *w = c.in[1].as<double>();
  std::vector<double> dyc, dgamma, dbeta, dx(g.in_pixels() * g.c), dw(g.weights());
  bn_backward(bn_parts(c, 2, 1, {g.n, g.oh, g.ow, g.k}, 4), c.saved[0].as<double>(), c.dout[0].as<double>(),
              pool_of(c.attrs) ? c.dout[1].as<double>() : nullptr, dyc, dgamma, dbeta);
  conv_products(g, [&](int64_t xi, int64_t wi, int64_t yi) {
    dx[xi] += dyc[yi] * w[wi];
    dw[wi] += dyc[yi] * x[xi];
  });
  put_gradient(c.din[0], dx);
  put_gradient(c.din[1], dw);
  put_gradient(c.din[2], dgamma);
  put_gradient(c.din[3], dbeta);
}

}  // namespace gm::ref
