#include "kernels/batch_norm/bn_ref.h"
#include "kernels/common/op.h"
#include "kernels/depthwise_bn_se/depthwise_bn_se.h"
#include "kernels/depthwise_conv2d/depthwise_ref.h"

namespace gm::ref {

namespace {
// One layer of squeeze-and-excitation: z = x w^T + bias.
void layer(const double* x, int64_t n, int64_t in, const double* w, const double* bias, int64_t out,
           double* z) {
  for (int64_t r = 0; r < n; ++r)
    for (int64_t o = 0; o < out; ++o) {
      z[r * out + o] = bias ? bias[o] : 0;
      for (int64_t i = 0; i < in; ++i) z[r * out + o] += x[r * in + i] * w[o * in + i];
    }
}
// Its gradients from dz: dx is returned, dw and dbias are put where the call wants them.
std::vector<double> layer_gradient(const OpCall& c, int weights, const double* x, int64_t n,
                                   const std::vector<double>& dz) {
  const Shape& s = c.in[weights].shape();
  const double* w = c.in[weights].as<double>();
  std::vector<double> dx(n * s[1]), dw(s.numel()), dbias(s[0]);
  for (int64_t r = 0; r < n; ++r)
    for (int64_t o = 0; o < s[0]; ++o) {
      dbias[o] += dz[r * s[0] + o];
      for (int64_t i = 0; i < s[1]; ++i) {
        dx[r * s[1] + i] += dz[r * s[0] + o] * w[o * s[1] + i];
        dw[o * s[1] + i] += dz[r * s[0] + o] * x[r * s[1] + i];
      }
    }
  put_gradient(c.din[weights], dw);
  put_gradient(c.din[weights + 1], dbias);
  return dx;
}
}  // namespace

void depthwise_bn_se_forward(const OpCall& c) {
  const DepthwiseShape d(c.attrs, c.in[0].shape());
  const int64_t n = d.images, squeeze = c.in[4].shape()[0], image = d.out_image();
  double *y = c.out[0].as<double>(), *yc = c.saved[0] ? c.saved[0].as<double>() : y;
  std::vector<std::vector<double>> own;
  auto saved = [&](int i, int64_t columns) {
    if (c.saved[i]) return c.saved[i].as<double>();
    own.emplace_back(n * columns);
    return own.back().data();
  };
  double *pooled = saved(3, d.channels), *squeezed = saved(4, squeeze), *acted = saved(5, squeeze),
         *excited = saved(6, d.channels), *gate = saved(7, d.channels);
  dw_forward(d, c.in[0].as<double>(), c.in[1].as<double>(), yc);
  bn_forward(bn_parts(c, 2, 1, d.output()), yc, c.state[0].as<double>(), c.state[1].as<double>(), y, pooled);
  layer(pooled, n, d.channels, c.in[4].as<double>(), c.in[5].as<double>(), squeeze, squeezed);
  for (int64_t i = 0; i < n * squeeze; ++i) acted[i] = act_value(act_of(c.attrs), squeezed[i]);
  layer(acted, n, squeeze, c.in[6].as<double>(), c.in[7].as<double>(), d.channels, excited);
  for (int64_t i = 0; i < n * d.channels; ++i) gate[i] = act_value(Act::sigmoid, excited[i]);
  for (int64_t i = 0; i < n * image; ++i) y[i] *= gate[i / image * d.channels + i % d.channels];
}

void depthwise_bn_se_backward(const OpCall& c) {
  const DepthwiseShape d(c.attrs, c.in[0].shape());
  const BnRef parts = bn_parts(c, 2, 1, d.output());
  const int64_t n = d.images, image = d.out_image();
  const double *yc = c.saved[0].as<double>(), *dy = c.dout[0].as<double>(), *gate = c.saved[7].as<double>();
  std::vector<double> da(n * image), dgate(n * d.channels);
  for (int64_t i = 0; i < n * image; ++i) {
    const int64_t k = i % d.channels, at = i / image * d.channels + k;
    const double z = parts.gamma[k] * (yc[i] - parts.mean[k]) * parts.inv_std[k] + parts.beta[k];
    dgate[at] += dy[i] * act_value(parts.act, z);
    da[i] = dy[i] * gate[at];
  }
  for (size_t i = 0; i < dgate.size(); ++i) dgate[i] *= act_slope(Act::sigmoid, c.saved[6].as<double>()[i]);
  std::vector<double> narrow = layer_gradient(c, 6, c.saved[5].as<double>(), n, dgate);
  for (size_t i = 0; i < narrow.size(); ++i) narrow[i] *= act_slope(parts.act, c.saved[4].as<double>()[i]);
  const std::vector<double> dpooled = layer_gradient(c, 4, c.saved[3].as<double>(), n, narrow);
  std::vector<double> dyc, dgamma, dbeta, dx, dw;
  bn_backward(parts, yc, da.data(), dpooled.data(), dyc, dgamma, dbeta);
  dw_backward(d, c.in[0].as<double>(), c.in[1].as<double>(), dyc.data(), dx, dw);
  put_gradient(c.din[0], dx);
  put_gradient(c.din[1], dw);
  put_gradient(c.din[2], dgamma);
  put_gradient(c.din[3], dbeta);
}

}  // namespace gm::ref
