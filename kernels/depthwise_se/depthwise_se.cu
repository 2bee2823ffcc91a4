#include "kernels/depthwise_se/depthwise_se.h"

#include "kernels/depthwise_bn_se/se_layers.cuh"
#include "kernels/depthwise_conv2d/depthwise_launch.cuh"
#include "kernels/global_pool/global_pool.h"

namespace gm::GM_BACKEND_NS {

void channel_scale_forward(const OpCall&);
void global_pool_forward(const OpCall&);

void depthwise_se_forward(const OpCall& c) {
  const DepthwiseSeWorkspace at = depthwise_se_workspace(Backend::cuda, c);
  const DepthwiseShape d(c.attrs, c.in[0].shape());
  char* memory = static_cast<char*>(c.workspace.data);
  auto place = [&](size_t offset, int64_t columns) {
    return View{memory + offset, {{d.images, columns}, DType::f32}};
  };
  const bool apart = gate_apart(c.attrs);
  const View &y = c.out[0], gate = apart ? c.out[1] : place(at.gate, d.channels);
  const View pooled = place(at.pooled, d.channels), acted = place(at.squeezed, c.in[3].shape()[0]);
  SeOperands se(pooled, c.in.subspan(3), acted, gate, act_of(c.attrs));
  float_switch(y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const bool summed =
        dw_launch_pooled(c.in[0].as<T>(), c.in[1].as<T>(), c.in[2] ? c.in[2].as<float>() : nullptr, y.as<T>(),
                         d, act_of(c.attrs), pooled.as<float>(), c.ctx);
    if (summed) {
      se.parts = static_cast<int>(at.parts), se.scale = 1.f / static_cast<float>(d.out_height * d.out_width);
      return;
    }
    const View in[] = {y}, out[] = {pooled};
    global_pool_forward(
        OpCall{{{"kind", PoolKind::average}}, in, out, {}, {}, {}, {}, {memory + at.ops, {}}, c.ctx});
  });
  se_launch_forward(se, c.ctx);
  if (apart) return;
  const View in[] = {y, gate};
  channel_scale_forward(OpCall{{}, in, c.out, {}, {}, {}, {}, {}, c.ctx});
}

}  // namespace gm::GM_BACKEND_NS
