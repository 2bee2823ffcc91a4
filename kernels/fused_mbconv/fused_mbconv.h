// A whole Fused-MBConv block in inference as one op; batch norms are folded into the weights and biases.
//   e[n,oy,ox,j] = act( b_expand[j] + sum over r,s,c of
//                       x[n, oy*stride - pad_top + r, ox*stride - pad_left + s, c] * w_expand[j,r,s,c] )
//   y[n,oy,ox,k] = b_project[k] + sum over j of e[n,oy,ox,j] * w_project[k,j]  (+ x[n,oy,ox,k])
//   (x is 0 outside the image; e is rounded to the dtype of x)
// attrs  kernel, stride, pad_top, pad_left, pad_bottom, pad_right as in conv2d; act (Act);
//        residual  1: x is added; needs the shape of y to be that of x
// in[0]  x          (N, H, W, C)  f32 or bf16
// in[1]  w_expand   (E, kernel, kernel, C)  dtype of x
// in[2]  b_expand   (E)           f32
// in[3]  w_project  (K, 1, 1, E)  dtype of x
// in[4]  b_project  (K)           f32
// out[0] y          (N, OH, OW, K) dtype of x
// Inference only. Source: S1, section 2.2 (Fused-MBConv of EfficientNetV2).
// On a card e need not be stored (fused_mbconv.cuh), which spares a pass that writes and one that reads the
// widest tensor of the block. The clock decides between that and the two convolutions.
#pragma once
#include <span>

#include "kernels/conv2d/conv2d.h"

namespace gm {

/// One block in plain numbers: its two convolutions.
struct FusedMbconvShape {
  ConvGeometry expand, project;
  bool residual = false;
  Act act = Act::none;

  int64_t expanded_values() const { return expand.out_pixels() * expand.k; }
};

/// Reads the attributes and shapes above; throws gm::Error naming what does not fit.
FusedMbconvShape fused_mbconv_shape(const Attrs& attrs, std::span<const TensorSpec> in);
/// Same for views.
FusedMbconvShape fused_mbconv_shape(const Attrs& attrs, std::span<const View> in);
/// Bytes of e, when it is stored, in front of the convolutions' workspace.
size_t fused_mbconv_expanded_bytes(const FusedMbconvShape& s);

}  // namespace gm
