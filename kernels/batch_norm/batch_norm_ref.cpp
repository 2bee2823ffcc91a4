#include "kernels/batch_norm/bn_ref.h"

namespace gm::ref {

namespace {
BnRef parts(const OpCall& c) {
  return {.attrs = BatchNormAttrs(c.attrs),
          .act = Act::none,
          .images = 1,
          .rows = c.in[0].shape().pixels(),
          .channels = c.in[0].shape().channels(),
          .gamma = c.in[1].as<double>(),
          .beta = c.in[2].as<double>(),
          .mean = c.saved[0].as<double>(),
          .inv_std = c.saved[1].as<double>()};
}
}  // namespace

void batch_norm_forward(const OpCall& c) {
  bn_forward(parts(c), c.in[0].as<double>(), c.state[0].as<double>(), c.state[1].as<double>(),
             c.out[0].as<double>(), nullptr);
}

void batch_norm_backward(const OpCall& c) {
  std::vector<double> dx, dgamma, dbeta;
  bn_backward(parts(c), c.in[0].as<double>(), c.dout[0].as<double>(), nullptr, dx, dgamma, dbeta);
  put_gradient(c.din[0], dx);
  put_gradient(c.din[1], dgamma);
  put_gradient(c.din[2], dbeta);
}

}  // namespace gm::ref
