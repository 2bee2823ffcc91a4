// Dense convolution, batch norm, activation, stochastic depth, residual and (optionally) global average pool
// as one training op.
//   yc = conv(x, w)                            as conv2d, no bias
//   a  = act(BN(yc)) * factor[n] + r           as batch_norm_act: batch statistics of yc, or the running ones
//   pooled[n, c] = mean over H, W of a
// attrs    kernel, stride, pad_top, pad_left, pad_bottom, pad_right; eps, momentum, training, unbiased; act;
//          rate, stream; pool
// in       x (N, H, W, C) f32 or bf16;  w (K, kernel, kernel, C) dtype of x, parameter;
//          gamma (K) f32, parameter;  beta (K) f32, parameter;
//          r (N, OH, OW, K) dtype of x, optional, may be x
// state    running mean (K) f32;  running variance (K) f32
// saved    yc (N, OH, OW, K) dtype of x;  mean (K) f32;  inv_std (K) f32;  with rate > 0 factor (N) f32
//          all null in inference: then yc is formed in the place of out[0]
// out[0]   a (N, OH, OW, K) dtype of x
// out[1]   pooled (N, K) f32, with pool = 1
// Backward makes two passes over (da, yc): the BN sums with act' recomputed, then dyc, from which the
// convolution's gradients follow. On the CPU a chunk of dyc lives in the cache only; on the GPU dyc is
// scratch, or, behind an expanding 1x1 convolution, in shared memory only (expand.h). It reads x, w, gamma
// and, with an activation, beta. Either of da and dpooled may be absent. The residual's gradient is da, in
// place where the planner can.
#pragma once
#include "kernels/batch_norm_act/batch_norm_act.h"
#include "kernels/conv2d/conv2d.h"

namespace gm {

/// yc of the header comment.
inline TensorSpec conv_bn_product(const Attrs& attrs, std::span<const TensorSpec> in) {
  const ConvGeometry g = conv_geometry(attrs, in);
  return {{g.n, g.oh, g.ow, g.k}, g.dtype};
}

}  // namespace gm
