#include "kernels/batch_norm/bn_launch.cuh"
#include "kernels/depthwise_conv2d/depthwise_launch.cuh"

namespace gm::GM_BACKEND_NS {

void depthwise_conv2d_forward(const OpCall& c) {
  const DepthwiseShape d(c.attrs, c.in[0].shape());
  const float* bias = c.in.size() > 2 ? c.in[2].as<float>() : nullptr;
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    dw_launch_forward(c.in[0].as<T>(), c.in[1].as<T>(), bias, c.out[0].as<T>(), d, act_of(c.attrs), c.ctx);
  });
}

void depthwise_conv2d_backward(const OpCall& c) {
  GM_CHECK(act_of(c.attrs) == Act::none,
           "depthwise_conv2d: an activation in the epilogue is for inference only");
  const DepthwiseShape d(c.attrs, c.in[0].shape());
  float* memory = static_cast<float*>(c.workspace.data);
  float* partial = memory + bn_gpu_workspace(d.channels) / sizeof(float);
  const BnVectors none(nullptr, 0);
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    const BnGradient<T> g{c.dout[0].as<T>(), nullptr, 1};
    dw_launch_backward<T, false>(c, d, {.g = g}, partial);
    if (c.din.size() > 2 && c.din[2])
      bn_launch_sums<T>(Act::none, nullptr, g, d.images * d.out_height * d.out_width, d.channels, memory,
                        {.v = none,
                         .inv_std = nullptr,
                         .dgamma = nullptr,
                         .dbeta = c.din[2].view.as<float>(),
                         .add_gamma = false,
                         .add_beta = c.din[2].mode == GradMode::accumulate,
                         .frozen = true,
                         .pixels = 1},
                        c.ctx);
  });
}

}  // namespace gm::GM_BACKEND_NS
