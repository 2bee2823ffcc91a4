// Batch normalisation, activation, stochastic depth, residual and (optionally) global average pool in one
// pass over x.
//   z = gamma * (x - mean) * inv_std + beta        as batch_norm, same attrs and state
//   y = act(z) * factor[n] + r                     factor: as dropout per sample, keep / (1 - rate), 1 in
//                                                  inference; r: 0 when there is no residual
//   pooled[n, c] = mean over H, W of y[n, :, :, c]
// attrs  those of batch_norm;  act  (Act);  rate, stream  those of dropout (default: rate 0);
//        pool  0 / 1 (needs x of rank 4; with neither rate nor residual)
// in     x (..., C) f32 or bf16;  gamma (C) f32, parameter;  beta (C) f32, parameter;
//        r like x, optional
// saved  those of batch_norm;  with rate > 0 factor (N) f32
// out[0] y like x
// out[1] pooled (N, C) f32, with pool = 1
// Backward reads x, gamma (and beta when there is an activation) and recomputes xhat and act'(z):
//   dr = dy;  dz = (dy * factor[n] + dpooled / (H W)) * act'(z), then as batch_norm.
// Either dy or dpooled may be absent. dr may be dy in place, and then costs nothing. An image whose factor is
// 0 is not read.
#pragma once
#include "kernels/activation/activation.h"
#include "kernels/batch_norm/batch_norm.h"

namespace gm {

inline bool pool_of(const Attrs& attrs) { return attrs.geti("pool", 0) != 0; }

}  // namespace gm
