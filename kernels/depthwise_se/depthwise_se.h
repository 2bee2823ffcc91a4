// Depthwise convolution with folded batch norm, activation and squeeze-and-excitation as one inference op.
//   a = act(depthwise(x, w) + b);  p[n,c] = mean over OH, OW of a
//   gate = sigmoid( w_excite * act( w_squeeze * p + b_squeeze ) + b_excite );  y = a * gate[n,c]
// attrs    those of depthwise_conv2d;  apart: 1: y is a, and the gate is left to whoever reads y
// in       x (N, H, W, C) f32 or bf16;  w (kernel, kernel, C) dtype of x;  b (C) f32, optional;
//          w_squeeze (S, C), b_squeeze (S), w_excite (C, S), b_excite (C) f32; the biases optional
// out[0]   y (N, OH, OW, C) dtype of x
// out[1]   gate (N, C) f32, with apart = 1
// On a card the convolution leaves the sums for p, so that a is written once and read once, for y: 4 passes
// over the expanded tensor instead of 5, and 4 launches instead of 7; apart, 2 and 3.
#pragma once
#include "kernels/common/op.h"
#include "kernels/depthwise_conv2d/depthwise_conv2d.h"

namespace gm {

inline bool gate_apart(const Attrs& attrs) { return attrs.geti("apart", 0) != 0; }

/// Offsets in the workspace.
struct DepthwiseSeWorkspace {
  int64_t parts = 1;             // sums of an image and channel in `pooled`
  size_t pooled = 0, gate = 0;   // [N][parts][C], [N][C]
  size_t squeezed = 0, ops = 0;  // [N][S]; workspace of ops that it calls
  size_t bytes = 0;
};
DepthwiseSeWorkspace depthwise_se_workspace(Backend backend, const Attrs& attrs,
                                            std::span<const TensorSpec> in);
/// Same for views.
DepthwiseSeWorkspace depthwise_se_workspace(Backend backend, const OpCall& call);

}  // namespace gm
