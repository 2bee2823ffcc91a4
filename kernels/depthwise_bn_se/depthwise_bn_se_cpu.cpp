#include "kernels/batch_norm/bn_op_cpu.h"
#include "kernels/common/dispatch.h"
#include "kernels/depthwise_bn_act/depthwise_bn_act.h"
#include "kernels/depthwise_bn_se/depthwise_bn_se.h"
#include "kernels/depthwise_bn_se/se_layers_cpu.h"

// The processor composes it of its other ops: a is formed anew in backward, which costs a pass and saves a
// tensor.

namespace gm::GM_CPU_NS {

void activation_backward(const OpCall&);
void channel_scale_forward(const OpCall&);
void channel_scale_backward(const OpCall&);
void depthwise_bn_act_forward(const OpCall&);
void depthwise_bn_act_backward(const OpCall&);
void linear_backward(const OpCall&);

namespace {
// dpooled (in the workspace) and the gradients of the four parameters from dgate.
void backward_layers(const SeLayers& se, const View& dgate) {
  const OpCall& call = se.call;
  const auto linear = [&](const View& x, int weights, const View& dy, const View& dx) {
    const View in[] = {x, call.in[weights], {}}, dout[] = {dy};
    const GradView din[] = {{dx, GradMode::overwrite}, call.din[weights], call.din[weights + 1]};
    linear_backward(OpCall{{}, in, {}, {}, {}, dout, din, {se.workspace + se.at.layers, {}}, call.ctx});
  };
  const auto activate = [&](Act act, const View& z, const View& dy, const View& dz) {
    const View in[] = {z}, dout[] = {dy};
    const GradView din[] = {{dz, GradMode::overwrite}};
    activation_backward(OpCall{act_attrs(act), in, {}, {}, {}, dout, din, {}, call.ctx});
  };
  const View dexcited = se.scratch(se.at.dexcited, se.excited), dacted = se.scratch(se.at.dacted, se.acted),
             dsqueezed = se.scratch(se.at.dsqueezed, se.squeezed);
  activate(Act::sigmoid, se.excited, dgate, dexcited);
  linear(se.acted, 6, dexcited, dacted);
  activate(act_of(call.attrs), se.squeezed, dacted, dsqueezed);
  linear(se.pooled, 4, dsqueezed, se.dpooled());
}
}  // namespace

void depthwise_bn_se_forward(const OpCall& c) {
  const SeLayers se(c, Backend::cpu, Pass::forward);
  const Attrs pooled = Attrs(c.attrs).set("pool", 1);
  const View out[] = {c.out[0], se.pooled};
  depthwise_bn_act_forward(
      OpCall{pooled, c.in.first(4), out, c.saved.first(3), c.state, {}, {}, c.workspace, c.ctx});
  SeForwardCpu{.layers = c.in.subspan(4),
               .act = act_of(c.attrs),
               .pooled = se.pooled,
               .squeezed = se.squeezed,
               .acted = se.acted,
               .excited = se.excited,
               .gate = se.gate,
               .workspace = {se.workspace + se.at.layers, {}}}
      .run(c.ctx);
  const View scale[] = {c.out[0], se.gate};
  channel_scale_forward(OpCall{{}, scale, c.out, {}, {}, {}, {}, {}, c.ctx});
}

void depthwise_bn_se_backward(const OpCall& c) {
  const SeLayers se(c, Backend::cpu, Pass::backward);
  const View &yc = c.saved[0], a = se.scratch(se.at.a, yc), da = se.scratch(se.at.da, yc),
             dgate = se.scratch(se.at.dgate, se.gate);
  const int64_t channels = yc.shape().channels();
  const BnCoefficients k(static_cast<float*>(c.workspace.data), channels);
  bn_coefficients(c.saved[1].as<float>(), c.saved[2].as<float>(), c.in[2].as<float>(), c.in[3].as<float>(),
                  channels, k);
  float_switch(yc.dtype(), [&](auto zero) {
    using T = decltype(zero);
    bn_apply_all(act_of(c.attrs), *c.ctx.pool, yc.as<T>(), a.as<T>(), nullptr, bn_chunks_of(yc.spec, false),
                 channels, k);
  });
  const View scale[] = {a, se.gate};
  const GradView both[] = {{da, GradMode::overwrite}, {dgate, GradMode::overwrite}};
  channel_scale_backward(OpCall{{}, scale, {}, {}, {}, c.dout, both, {}, c.ctx});
  backward_layers(se, dgate);
  const Attrs pooled = Attrs(c.attrs).set("pool", 1);
  const View dout[] = {da, se.dpooled()};
  depthwise_bn_act_backward(
      OpCall{pooled, c.in.first(4), {}, c.saved.first(3), c.state, dout, c.din.first(4), c.workspace, c.ctx});
}

}  // namespace gm::GM_CPU_NS
