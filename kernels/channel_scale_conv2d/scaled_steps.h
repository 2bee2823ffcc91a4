// channel_scale_conv2d as the two ops that it is made of.
#pragma once
#include "kernels/channel_scale_conv2d/channel_scale_conv2d.h"
#include "kernels/common/op.h"

namespace gm {

/// Workspace: the scaled input, then that of the convolution.
template <class Scale, class Conv>
void scaled_conv_steps(const OpCall& c, Scale scale, Conv conv) {
  View scaled = c.in[0], scratch = c.workspace;
  scaled.data = scratch.data;
  scratch.data =
      static_cast<char*>(scratch.data) + scaled_conv_input_bytes(conv_geometry(c.attrs, scaled, c.in[2]));
  const View factors[] = {c.in[0], c.in[1]}, scaled_out[] = {scaled},
             operands[] = {scaled, c.in[2], c.in[3], scaled_conv_residual(c.in)};
  scale(OpCall{{}, factors, scaled_out, {}, {}, {}, {}, {}, c.ctx});
  conv(OpCall{c.attrs, operands, c.out, {}, {}, {}, {}, scratch, c.ctx});
}

}  // namespace gm
