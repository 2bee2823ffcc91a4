// Depthwise convolution, batch norm, activation and squeeze-and-excitation as one training op.
//   yc = depthwise(x, w);  a = act(BN(yc))        as depthwise_bn_act
//   p[n,c] = mean over OH, OW of a;  gate = sigmoid( w_excite * act( w_squeeze * p + b_squeeze ) + b_excite )
//   y = a * gate[n,c]
// attrs    those of depthwise_bn_act, without pool
// in       x (N, H, W, C) f32 or bf16;  w (kernel, kernel, C) dtype of x, parameter;
//          gamma (C), beta (C) f32, parameters;
//          w_squeeze (S, C), b_squeeze (S), w_excite (C, S), b_excite (C) f32, parameters, biases optional
// state    running mean (C) f32;  running variance (C) f32
// saved    yc (N, OH, OW, C) dtype of x;  mean, inv_std (C), pooled (N, C), squeezed (N, S), acted (N, S),
//          excited (N, C), gate (N, C), all f32; null in inference: then yc is formed in the place of out[0]
// out[0]   y (N, OH, OW, C) dtype of x
// a is not stored. Backward reads x, w, gamma, beta, w_squeeze and w_excite. On a card it passes twice over
// (dy, yc): with v = yc - mean, a' = act'(BN(yc)) five sums over the pixels of each image and channel
//   S0 = sum dy a,  S1 = sum dy a',  S2 = sum a',  S3 = sum dy a' v,  S4 = sum a' v
// give the gradient of the gate (S0), from it dp through the two layers, and from dp those of gamma and beta:
//   dbeta = sum over n of gate S1 + dp / (OH OW) S2,   dgamma = inv_std * the same of S3 and S4.
// The second pass forms (dy gate + dp / (OH OW)) a' on the fly and turns it into dx and dw.
#pragma once
#include "kernels/common/op.h"
#include "kernels/depthwise_conv2d/depthwise_conv2d.h"

namespace gm {

/// Offsets in the workspace: what depthwise_bn_act needs is at 0.
struct DepthwiseBnSeWorkspace {
  size_t pooled = 0, squeezed = 0, acted = 0, excited = 0, gate = 0;  // forward with nothing saved
  // backward: sums [5][N][C]; gradients of excited, acted, squeezed, pooled; CPU: dgate, a, da
  size_t sums = 0, dexcited = 0, dacted = 0, dsqueezed = 0, dpooled = 0, dgate = 0, a = 0, da = 0;
  size_t layers = 0, bytes = 0;  // layers: workspace of `linear`; CPU
};
DepthwiseBnSeWorkspace depthwise_bn_se_workspace(Backend backend, Pass pass, const Attrs& attrs,
                                                 std::span<const TensorSpec> in);

/// The tensors of the two layers between pooled and gate.
struct SeLayers {
  const OpCall& call;
  View pooled, squeezed, acted, excited, gate;
  char* workspace;
  DepthwiseBnSeWorkspace at;

  SeLayers(const OpCall& c, Backend backend, Pass pass);
  View dpooled() const { return scratch(at.dpooled, pooled); }
  View scratch(size_t offset, const View& like) const { return {workspace + offset, like.spec}; }
};

}  // namespace gm
