#include "kernels/batch_norm_act/batch_norm_act.h"

#include "kernels/add/add.h"
#include "kernels/batch_norm/bn_launch.cuh"

namespace gm::GM_BACKEND_NS {

void add_backward(const OpCall&);

void batch_norm_act_forward(const OpCall& c) {
  float_switch(c.in[0].dtype(),
               [&](auto zero) { bn_op_forward<decltype(zero)>(c, act_of(c.attrs), pool_of(c.attrs)); });
}

void batch_norm_act_backward(const OpCall& c) {
  residual_backward(add_backward, c, 3);
  float_switch(c.in[0].dtype(),
               [&](auto zero) { bn_op_backward<decltype(zero)>(c, act_of(c.attrs), pool_of(c.attrs)); });
}

}  // namespace gm::GM_BACKEND_NS
