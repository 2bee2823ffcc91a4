#include "kernels/batch_norm/bn_launch.cuh"

namespace gm::GM_BACKEND_NS {

void batch_norm_forward(const OpCall& c) {
  float_switch(c.in[0].dtype(), [&](auto zero) { bn_op_forward<decltype(zero)>(c, Act::none, false); });
}

void batch_norm_backward(const OpCall& c) {
  float_switch(c.in[0].dtype(), [&](auto zero) { bn_op_backward<decltype(zero)>(c, Act::none, false); });
}

}  // namespace gm::GM_BACKEND_NS
