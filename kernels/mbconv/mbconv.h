// A whole MBConv block in inference as one op; batch norms are folded into the weights and biases.
//   e = act( x * w_expand + b_expand )                    1x1 convolution; without w_expand e = x and E = C
//   d = act( depthwise(e, w_depthwise) + b_depthwise )    kernel x kernel, x = 0 outside the image
//   squeeze-and-excitation, when w_squeeze and w_excite are given:
//     p[n,j] = mean over OH, OW of d
//     g = sigmoid( w_excite * act( w_squeeze * p + b_squeeze ) + b_excite ),   d = d * g[n,j]
//   y = d * w_project + b_project (+ x)                   1x1 convolution
// attrs  kernel, stride, pad_top, pad_left, pad_bottom, pad_right as in depthwise_conv2d; act (Act);
//        residual  1: x is added; needs the shape of y to be that of x
// in[0]  x            (N, H, W, C)  f32 or bf16
// in[1]  w_expand     (E, 1, 1, C)  dtype of x, optional
// in[2]  b_expand     (E)           f32, given with w_expand
// in[3]  w_depthwise  (kernel, kernel, E)  dtype of x
// in[4]  b_depthwise  (E)           f32
// in[5]  w_project    (K, 1, 1, E)  dtype of x
// in[6]  b_project    (K)           f32
// in[7]  w_squeeze    (S, E)        f32, optional
// in[8]  b_squeeze    (S)           f32, optional
// in[9]  w_excite     (E, S)        f32, given with w_squeeze
// in[10] b_excite     (E)           f32, optional
// out[0] y            (N, OH, OW, K) dtype of x
// Inference only. The expanded tensors are never stored; with squeeze-and-excitation d is, on a card.
#pragma once
#include <span>

#include "kernels/depthwise_conv2d/depthwise_conv2d.h"

namespace gm {

/// One block in plain numbers.
struct MbconvShape {
  DepthwiseShape d;                            // on the expanded tensor: d.channels is E
  int64_t in_channels, out_channels, squeeze;  // C; K; S, 0 without squeeze-and-excitation
  bool expand, residual;
  Act act;
  DType dtype;

  int64_t images() const { return d.images; }
  int64_t in_image() const { return d.height * d.width * in_channels; }
  int64_t out_pixels() const { return d.out_height * d.out_width; }
  int64_t out_image() const { return out_pixels() * out_channels; }
  Shape output() const { return {d.images, d.out_height, d.out_width, out_channels}; }
};

/// Reads the attributes and shapes above; throws gm::Error naming what does not fit. An absent input has an
/// empty spec.
MbconvShape mbconv_shape(const Attrs& attrs, std::span<const TensorSpec> in);
/// Same for views.
MbconvShape mbconv_shape(const Attrs& attrs, std::span<const View> in);

}  // namespace gm
