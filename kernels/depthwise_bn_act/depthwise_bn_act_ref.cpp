#include "kernels/batch_norm/bn_ref.h"
#include "kernels/common/op.h"
#include "kernels/depthwise_bn_act/depthwise_bn_act.h"
#include "kernels/depthwise_conv2d/depthwise_ref.h"

namespace gm::ref {

void depthwise_bn_act_forward(const OpCall& c) {
  const DepthwiseShape d(c.attrs, c.in[0].shape());
  double* yc = c.saved[0] ? c.saved[0].as<double>() : c.out[0].as<double>();
  dw_forward(d, c.in[0].as<double>(), c.in[1].as<double>(), yc);
  bn_forward(bn_parts(c, 2, 1, d.output()), yc, c.state[0].as<double>(), c.state[1].as<double>(),
             c.out[0].as<double>(), pool_of(c.attrs) ? c.out[1].as<double>() : nullptr);
}

void depthwise_bn_act_backward(const OpCall& c) {
  const DepthwiseShape d(c.attrs, c.in[0].shape());
  std::vector<double> dyc, dgamma, dbeta, dx, dw;
  bn_backward(bn_parts(c, 2, 1, d.output()), c.saved[0].as<double>(), c.dout[0].as<double>(),
              pool_of(c.attrs) ? c.dout[1].as<double>() : nullptr, dyc, dgamma, dbeta);
  dw_backward(d, c.in[0].as<double>(), c.in[1].as<double>(), dyc.data(), dx, dw);
  put_gradient(c.din[0], dx);
  put_gradient(c.din[1], dw);
  put_gradient(c.din[2], dgamma);
  put_gradient(c.din[3], dbeta);
}

}  // namespace gm::ref
