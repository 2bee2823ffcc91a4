// fused_mbconv as the two convolutions that it is made of.
#pragma once
#include "kernels/common/op.h"
#include "kernels/fused_mbconv/fused_mbconv.h"

namespace gm {

/// The attributes of the projection.
inline Attrs fused_mbconv_projection() { return {{"kernel", 1}, {"act", 0}}; }

/// Workspace: e, then that of the convolutions.
template <class Conv>
void fused_mbconv_steps(const OpCall& c, Conv conv) {
  const FusedMbconvShape s = fused_mbconv_shape(c.attrs, c.in);
  View scratch = c.workspace;
  const View expanded{scratch.data, {{s.expand.n, s.expand.oh, s.expand.ow, s.expand.k}, s.expand.dtype}};
  scratch.data = static_cast<char*>(scratch.data) + fused_mbconv_expanded_bytes(s);
  const View wide[] = {c.in[0], c.in[1], c.in[2], View()}, wide_out[] = {expanded},
             narrow[] = {expanded, c.in[3], c.in[4], s.residual ? c.in[0] : View()};
  conv(OpCall{c.attrs, wide, wide_out, {}, {}, {}, {}, scratch, c.ctx});
  const Attrs projection = fused_mbconv_projection();
  conv(OpCall{projection, narrow, c.out, {}, {}, {}, {}, scratch, c.ctx});
}

}  // namespace gm
