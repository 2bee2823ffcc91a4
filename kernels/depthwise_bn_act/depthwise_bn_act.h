// Depthwise convolution, batch norm, activation and (optionally) global average pool as one training op.
//   yc = depthwise(x, w)                       as depthwise_conv2d, no bias
//   a  = act(BN(yc))                           as batch_norm_act: batch statistics of yc, or the running ones
//   pooled[n, c] = mean over H, W of a
// attrs    kernel, stride, pad_top, pad_left, pad_bottom, pad_right; eps, momentum, training, unbiased; act;
//          pool
// in       x (N, H, W, C) f32 or bf16;  w (kernel, kernel, C) dtype of x, parameter;
//          gamma (C) f32, parameter;  beta (C) f32, parameter
// state    running mean (C) f32;  running variance (C) f32
// saved    yc (N, OH, OW, C) dtype of x;  mean (C) f32;  inv_std (C) f32
//          all null in inference: then yc is formed in the place of out[0]
// out[0]   a (N, OH, OW, C) dtype of x
// out[1]   pooled (N, C) f32, with pool = 1
// Forward takes the statistics of yc while writing it. Backward makes two passes over (da, yc): the BN sums
// with act' recomputed, then one pass that forms dyc on the fly and turns it into dx and dw at once: dyc is
// never stored. It reads x, w, gamma and, with an activation, beta. Either of da and dpooled may be absent.
#pragma once
#include "kernels/batch_norm_act/batch_norm_act.h"
#include "kernels/depthwise_conv2d/depthwise_conv2d.h"
