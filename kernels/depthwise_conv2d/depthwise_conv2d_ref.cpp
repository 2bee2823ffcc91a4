#include "kernels/batch_norm/bn_ref.h"
#include "kernels/common/op.h"
#include "kernels/depthwise_conv2d/depthwise_ref.h"

namespace gm::ref {

void depthwise_conv2d_forward(const OpCall& c) {
  const DepthwiseShape d(c.attrs, c.in[0].shape());
  const double* bias = c.in.size() > 2 ? c.in[2].as<double>() : nullptr;
  double* y = c.out[0].as<double>();
  dw_forward(d, c.in[0].as<double>(), c.in[1].as<double>(), y);
  for (int64_t i = 0; i < c.out[0].numel(); ++i)
    y[i] = act_value(act_of(c.attrs), y[i] + (bias ? bias[i % d.channels] : 0));
}

void depthwise_conv2d_backward(const OpCall& c) {
  GM_CHECK(act_of(c.attrs) == Act::none,
           "depthwise_conv2d: an activation in the epilogue is for inference only");
  const DepthwiseShape d(c.attrs, c.in[0].shape());
  const double* dy = c.dout[0].as<double>();
  std::vector<double> dx, dw, dbias(d.channels, 0);
  dw_backward(d, c.in[0].as<double>(), c.in[1].as<double>(), dy, dx, dw);
  for (int64_t i = 0; i < d.images * d.out_image(); ++i) dbias[i % d.channels] += dy[i];
  put_gradient(c.din[0], dx);
  put_gradient(c.din[1], dw);
  if (c.din.size() > 2) put_gradient(c.din[2], dbias);
}

}  // namespace gm::ref
