#include "kernels/depthwise_bn_act/depthwise_bn_act.h"

#include "kernels/batch_norm/bn_launch.cuh"
#include "kernels/depthwise_conv2d/depthwise_launch.cuh"

namespace gm::GM_BACKEND_NS {

namespace {
// Workspace: BN vectors [6][C] (room for 8), BN partials, then partial weight gradients.
float* bn_partials(const OpCall& c, int64_t channels) {
  return bn_gpu_partials(static_cast<float*>(c.workspace.data), channels);
}
float* weight_partials(const OpCall& c, int64_t channels) {
  return static_cast<float*>(c.workspace.data) + bn_gpu_workspace(channels) / sizeof(float);
}

template <class T>
void forward(const OpCall& c) {
  const DepthwiseShape d(c.attrs, c.in[0].shape());
  T *a = c.out[0].as<T>(), *yc = c.saved[0] ? c.saved[0].as<T>() : a;
  const BnVectors v = dw_launch_normalised(c, d, yc);
  const Shape shape = d.output();
  bn_launch_apply(act_of(c.attrs), yc, a, pool_of(c.attrs) ? c.out[1].as<float>() : nullptr, shape, v, c.ctx);
}

template <class T>
void backward(const OpCall& c) {
  const DepthwiseShape d(c.attrs, c.in[0].shape());
  const Act act = act_of(c.attrs);
  const BnVectors v(static_cast<float*>(c.workspace.data), d.channels);
  const int64_t pixels = d.output().pixels();
  const T* yc = c.saved[0].as<T>();
  const BnGradient<T> g{c.dout[0].as<T>(), pool_of(c.attrs) ? c.dout[1].as<float>() : nullptr,
                        static_cast<int>(d.out_height * d.out_width)};
  const BnFinishBackward finish = bn_finish_backward_of(c, 2, v, pixels);
  if (!finish.frozen || finish.dgamma || finish.dbeta)
    bn_launch_sums(act, yc, g, pixels, d.channels, bn_partials(c, d.channels), finish, c.ctx);
  dw_launch_backward<T, true>(c, d, {.g = g, .yc = yc, .act = act, .norm = finish},
                              weight_partials(c, d.channels));
}
}  // namespace

void depthwise_bn_act_forward(const OpCall& c) {
  float_switch(c.in[0].dtype(), [&](auto zero) { forward<decltype(zero)>(c); });
}

void depthwise_bn_act_backward(const OpCall& c) {
  float_switch(c.in[0].dtype(), [&](auto zero) { backward<decltype(zero)>(c); });
}

}  // namespace gm::GM_BACKEND_NS
