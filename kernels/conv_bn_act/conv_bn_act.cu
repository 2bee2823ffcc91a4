#include "kernels/common/op.h"
#include "kernels/common/simt.h"
#include "kernels/conv2d/conv2d_plan.h"
#include "kernels/conv_bn_act/conv_bn_act.h"

// The two ops it is made of, one after the other: a convolution on the GPU leaves no room for a BN in its
// epilogue (statistics of the whole batch come first), so the gain over separate ops is memory: nothing but
// yc is kept for backward, and z, dz and dyc never outlive the call. Both steps share one scratch.

namespace gm::GM_BACKEND_NS {

void conv2d_forward(const OpCall&);
void conv2d_backward(const OpCall&);
void batch_norm_act_forward(const OpCall&);
void batch_norm_act_backward(const OpCall&);

namespace {
// conv2d would read `act` as its epilogue.
Attrs plain_conv(const Attrs& a) { return Attrs(a).set("act", 0); }
}  // namespace

void conv_bn_act_forward(const OpCall& c) {
  const View& yc = c.saved[0] ? c.saved[0] : c.out[0];
  const View conv_in[] = {c.in[0], c.in[1], View{}}, bn_in[] = {yc, c.in[2], c.in[3]};
  const Attrs conv = plain_conv(c.attrs);
  conv2d_forward({conv, conv_in, std::span(&yc, 1), {}, {}, {}, {}, c.workspace, c.ctx});
  batch_norm_act_forward({c.attrs, bn_in, c.out, c.saved.subspan(1), c.state, {}, {}, c.workspace, c.ctx});
}

// Workspace: dyc, then the scratch of either step.
void conv_bn_act_backward(const OpCall& c) {
  const View& yc = c.saved[0];
  const View dyc{c.workspace.data, yc.spec};
  const size_t used = ConvPlan::aligned(yc.spec.bytes());
  View scratch = c.workspace;
  scratch.data = static_cast<char*>(c.workspace.data) + used;
  const bool wanted = c.din[0] || c.din[1];
  const View bn_in[] = {yc, c.in[2], c.in[3]}, conv_in[] = {c.in[0], c.in[1], View{}};
  const GradView bn_din[] = {wanted ? GradView{dyc, GradMode::overwrite} : GradView{}, c.din[2], c.din[3]},
                 conv_din[] = {c.din[0], c.din[1], GradView{}};
  batch_norm_act_backward({c.attrs, bn_in, {}, c.saved.subspan(1), c.state, c.dout, bn_din, scratch, c.ctx});
  if (!wanted) return;
  const Attrs conv = plain_conv(c.attrs);
  conv2d_backward({conv, conv_in, {}, {}, {}, std::span(&dyc, 1), conv_din, scratch, c.ctx});
}

}  // namespace gm::GM_BACKEND_NS
