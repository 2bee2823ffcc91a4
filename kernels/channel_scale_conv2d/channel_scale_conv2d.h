// A 1x1 convolution of an input scaled by a factor of each image and channel, in inference: squeeze-and-
// excitation's gate and the projection behind it.
//   y[n,h,w,k] = act( bias[k] + sum over c of (x[n,h,w,c] s[n,c]) w[k,c] ) + residual[n,h,w,k]
// The products x s are rounded to the dtype of x.
// attrs    those of conv2d: kernel 1, no stride, no padding
// in       x (N, H, W, C) f32 or bf16;  s (N, C) f32;  w (K, 1, 1, C) dtype of x;  bias (K) f32, optional;
//          residual like y, optional
// out[0]   y (N, H, W, K) dtype of x
// On a card x can be scaled where the products are formed (conv2d_deep.cuh), which spares a pass that reads
// and writes it: 2 passes over the wide tensor behind the depthwise convolution instead of 4. The clock
// decides between that and the two steps.
#pragma once
#include "kernels/conv2d/conv2d.h"

namespace gm {

/// The convolution alone; throws gm::Error where it is not 1x1.
ConvGeometry scaled_conv_geometry(const Attrs& attrs, std::span<const TensorSpec> in);
/// Bytes of the scaled input in front of the convolution's workspace.
size_t scaled_conv_input_bytes(const ConvGeometry& g);

/// in[4], null when it is not given.
inline View scaled_conv_residual(std::span<const View> in) { return in.size() > 4 ? in[4] : View(); }

}  // namespace gm
