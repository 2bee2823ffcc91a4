#include "kernels/add/add.h"
#include "kernels/batch_norm/bn_ref.h"
#include "kernels/batch_norm_act/batch_norm_act.h"

namespace gm::ref {

void add_backward(const OpCall&);

void batch_norm_act_forward(const OpCall& c) {
  bn_forward(bn_parts(c, 1, 0, c.in[0].shape(), 3), c.in[0].as<double>(), c.state[0].as<double>(),
             c.state[1].as<double>(), c.out[0].as<double>(),
             pool_of(c.attrs) ? c.out[1].as<double>() : nullptr);
}

void batch_norm_act_backward(const OpCall& c) {
  residual_backward(add_backward, c, 3);
  std::vector<double> dx, dgamma, dbeta;
  bn_backward(bn_parts(c, 1, 0, c.in[0].shape(), 3), c.in[0].as<double>(), c.dout[0].as<double>(),
              pool_of(c.attrs) ? c.dout[1].as<double>() : nullptr, dx, dgamma, dbeta);
  put_gradient(c.din[0], dx);
  put_gradient(c.din[1], dgamma);
  put_gradient(c.din[2], dbeta);
}

}  // namespace gm::ref
