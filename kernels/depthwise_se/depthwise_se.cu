#include "kernels/depthwise_se/depthwise_se.h"

#include "kernels/depthwise_bn_se/se_layers.cuh"
#include "kernels/depthwise_conv2d/depthwise_forward.cuh"

namespace gm::GM_BACKEND_NS {

void channel_scale_forward(const OpCall&);
void global_pool_forward(const OpCall&);

void depthwise_se_forward(const OpCall& c) {
  const DepthwiseSeWorkspace at = depthwise_se_workspace(Backend::cuda, c);
  const DepthwiseShape d(c.attrs, c.in[0].shape());
  char* memory = static_cast<char*>(c.workspace.data);
  const View &y = c.out[0], gate{memory + at.gate, {{d.images, d.channels}, DType::f32}};
  float* pooled = reinterpret_cast<float*>(memory + at.pooled);
  SeForward se{.pooled = pooled,
               .parts = static_cast<int>(at.parts),
               .scale = 1.f / static_cast<float>(d.out_height * d.out_width),
               .w_squeeze = c.in[3],
               .b_squeeze = c.in[4],
               .w_excite = c.in[5],
               .b_excite = c.in[6],
               .acted = reinterpret_cast<float*>(memory + at.squeezed),
               .gate = gate.as<float>(),
               .act = act_of(c.attrs)};
  float_switch(y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const bool summed = dw_launch_forward<T, DwEnd::any_pool>(
        c.in[0].as<T>(), c.in[1].as<T>(), c.in[2] ? c.in[2].as<float>() : nullptr, y.as<T>(), d,
        act_of(c.attrs), pooled, BnFinish{.v = BnVectors(nullptr, 0)}, c.ctx);
    if (summed) return;
    const View in[] = {y}, out[] = {View{pooled, gate.spec}};
    global_pool_forward(OpCall{{{"kind", 0}}, in, out, {}, {}, {}, {}, {memory + at.ops, {}}, c.ctx});
    se.parts = 1, se.scale = 1.f;
  });
  se_launch_forward(se, d.images, c.ctx);
  const View in[] = {y, gate};
  channel_scale_forward(OpCall{{}, in, c.out, {}, {}, {}, {}, {}, c.ctx});
}

}  // namespace gm::GM_BACKEND_NS
