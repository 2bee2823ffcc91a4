#include "kernels/common/joint_choice.cuh"
#include "kernels/common/op.h"
#include "kernels/common/simt.h"
#include "kernels/conv2d/conv2d.h"
#include "kernels/conv_bn_act/conv_bn_act.h"
#include "kernels/conv_bn_act/expand_backward.cuh"
#include "kernels/conv_bn_act/expand_forward.cuh"

// The two ops it is made of, one after the other: a convolution on the GPU leaves no room for a BN in its
// epilogue (statistics of the whole batch come first), so the gain over separate ops is memory: nothing but
// yc is kept for backward, and z, dz and dyc never outlive the call. Both steps share one scratch. An
// expanding 1x1 convolution may instead be one with its batch norm: expand_forward.cuh, expand_backward.cuh.

namespace gm::GM_BACKEND_NS {

void conv2d_forward(const OpCall&);
void conv2d_backward(const OpCall&);
void batch_norm_act_forward(const OpCall&);
void batch_norm_act_backward(const OpCall&);

namespace {
// conv2d would read `act` as its epilogue.
Attrs plain_conv(const Attrs& a) { return Attrs(a).set("act", Act::none); }

void forward_apart(const OpCall& c) {
  const View yc = c.saved[0] ? c.saved[0] : c.out[0];
  const View conv_in[3] = {c.in[0], c.in[1], View()}, conv_out[1] = {yc};
  const View bn_in[4] = {yc, c.in[2], c.in[3], c.in.size() > 4 ? c.in[4] : View()};
  const Attrs attrs = plain_conv(c.attrs);
  const OpCall conv{.attrs = attrs,
                    .in = conv_in,
                    .out = conv_out,
                    .saved = {},
                    .state = {},
                    .dout = {},
                    .din = {},
                    .workspace = c.workspace,
                    .ctx = c.ctx};
  conv2d_forward(conv);
  const OpCall bn{.attrs = c.attrs,
                  .in = bn_in,
                  .out = c.out,
                  .saved = c.saved.subspan(1),
                  .state = c.state,
                  .dout = {},
                  .din = {},
                  .workspace = c.workspace,
                  .ctx = c.ctx};
  batch_norm_act_forward(bn);
}

void forward_joint(const OpCall& c, const ExpandForward& p) {
  launch_expand_forward(p, c, static_cast<float*>(c.workspace.data));
}

/// The batch norm's part of a backward call, with the gradients of gamma, beta and the residual; dyc empty:
/// no more than its sums.
struct BatchNormStep {
  const OpCall& c;
  View scratch;
  View in[3];
  GradView din[4];

  BatchNormStep(const OpCall& call, const GradView& dyc, const View& scratch_view)
      : c(call),
        scratch(scratch_view),
        in{c.saved[0], c.in[2], c.in[3]},
        din{dyc, c.din[2], c.din[3], c.din.size() > 4 ? c.din[4] : GradView()} {}
  OpCall call() const {
    return {.attrs = c.attrs,
            .in = in,
            .out = {},
            .saved = c.saved.subspan(1),
            .state = c.state,
            .dout = c.dout,
            .din = din,
            .workspace = scratch,
            .ctx = c.ctx};
  }
};

// Workspace: dyc, then the scratch of either step. The residual's gradient comes first and may lie in the
// place of dout[0]; so may then the gradient of x, when x is the residual: the convolution adds it last.
void backward_apart(const OpCall& c, const View& scratch) {
  View dyc = c.saved[0];
  dyc.data = c.workspace.data;
  const bool wanted = c.din[0] || c.din[1];
  const BatchNormStep bn(c, wanted ? GradView{dyc, GradMode::overwrite} : GradView(), scratch);
  batch_norm_act_backward(bn.call());
  if (!wanted) return;
  const View conv_in[3] = {c.in[0], c.in[1], View()}, conv_dout[1] = {dyc};
  const GradView conv_din[3] = {c.din[0], c.din[1], GradView()};
  const Attrs attrs = plain_conv(c.attrs);
  const OpCall conv{.attrs = attrs,
                    .in = conv_in,
                    .out = {},
                    .saved = {},
                    .state = {},
                    .dout = conv_dout,
                    .din = conv_din,
                    .workspace = scratch,
                    .ctx = c.ctx};
  conv2d_backward(conv);
}

// Workspace: the partial sums of dw, then the scratch of the batch norm.
void backward_joint(const OpCall& c, const ExpandBackward& p, const View& scratch) {
  const BatchNormStep sums(c, GradView(), scratch);
  const OpCall bn = sums.call();
  batch_norm_act_backward(bn);
  const BnVectors vectors(static_cast<float*>(scratch.data), p.k);
  launch_expand_backward(p, c.dout[0].as<bf16>(), c.saved[0].as<bf16>(), c.in[0].as<bf16>(),
                         c.in[1].as<bf16>(), bn_finish_backward_of(bn, 1, vectors, p.pixels), c.din[0],
                         c.din[1], static_cast<float*>(c.workspace.data), c.ctx);
}

/// Whether there is one: backward does not read it.
bool has_residual(const OpCall& c) { return c.in.size() > 4 && c.in[4].spec.shape.rank; }

}  // namespace

void conv_bn_act_forward(const OpCall& c) {
  const auto p = expand_forward(c.attrs, conv_geometry(c.attrs, c.in[0], c.in[1]), has_residual(c));
  auto joint = [&](const OpCall& call) { forward_joint(call, *p); };
  if (p && joint_pays(c, expansion_key(c, *p), p->shared_bytes(), forward_apart, joint)) return joint(c);
  forward_apart(c);
}

void conv_bn_act_backward(const OpCall& c) {
  const ConvGeometry g = conv_geometry(c.attrs, c.in[0], c.in[1]);
  const bool residual = has_residual(c);
  View scratch = c.workspace;
  scratch.data = static_cast<char*>(scratch.data) + conv_bn_backward_bytes(c.attrs, g, residual);
  auto apart = [&](const OpCall& call) { backward_apart(call, scratch); };
  const auto p = expand_backward(c.attrs, g, residual);
  auto joint = [&](const OpCall& call) { backward_joint(call, *p, scratch); };
  if ((c.din[0] || c.din[1]) && c.dout[0] && p &&
      joint_pays(c, expansion_key(c, *p), p->shared_bytes(), apart, joint))
    return joint(c);
  apart(c);
}

}  // namespace gm::GM_BACKEND_NS
