#include "kernels/depthwise_bn_se/se_layers_cpu.h"
#include "kernels/depthwise_se/depthwise_se.h"
#include "kernels/global_pool/global_pool.h"

// Composed of the other ops: a processor gains nothing by more.

namespace gm::GM_CPU_NS {

void channel_scale_forward(const OpCall&);
void depthwise_conv2d_forward(const OpCall&);
void global_pool_forward(const OpCall&);

void depthwise_se_forward(const OpCall& c) {
  const DepthwiseSeWorkspace at = depthwise_se_workspace(Backend::cpu, c);
  const Shape narrow = c.in[3].shape();
  char* memory = static_cast<char*>(c.workspace.data);
  const View scratch{memory + at.ops, {}}, y = c.out[0];
  const TensorSpec wide{{y.shape()[0], narrow[1]}, DType::f32};
  const bool apart = gate_apart(c.attrs);
  const View pooled{memory + at.pooled, wide},
      gate = apart ? c.out[1] : View{memory + at.gate, wide},
      squeezed{memory + at.squeezed, {{y.shape()[0], narrow[0]}, DType::f32}};
  auto run = [&](auto op, const Attrs& attrs, std::initializer_list<View> in, const View& out) {
    const View outs[] = {out};
    op(OpCall{attrs, std::span(in.begin(), in.size()), outs, {}, {}, {}, {}, scratch, c.ctx});
  };
  run(depthwise_conv2d_forward, c.attrs, {c.in[0], c.in[1], c.in[2]}, y);
  run(global_pool_forward, {{"kind", PoolKind::average}}, {y}, pooled);
  SeForwardCpu{.layers = c.in.subspan(3),
               .act = act_of(c.attrs),
               .pooled = pooled,
               .squeezed = squeezed,
               .acted = squeezed,
               .excited = gate,
               .gate = gate,
               .workspace = scratch}
      .run(c.ctx);
  if (!apart) run(channel_scale_forward, {}, {y, gate}, y);
}

}  // namespace gm::GM_CPU_NS
