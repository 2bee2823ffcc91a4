// Batch normalisation, activation and (optionally) global average pool in one pass over x.
//   z = gamma * (x - mean) * inv_std + beta        as batch_norm, same attrs, state and saved tensors
//   y = act(z)
//   pooled[n, c] = mean over H, W of y[n, :, :, c]
// attrs  those of batch_norm;  act  (Act);  pool  0 / 1 (needs x of rank 4)
// in     x (..., C) f32 or bf16;  gamma (C) f32, parameter;  beta (C) f32, parameter
// out[0] y like x
// out[1] pooled (N, C) f32, with pool = 1
// Backward reads x, gamma (and beta when there is an activation) and recomputes xhat and act'(z):
//   dz = (dy + dpooled / (H W)) * act'(z), then as batch_norm. Either dy or dpooled may be absent.
#pragma once
#include "kernels/activation/activation.h"
#include "kernels/batch_norm/batch_norm.h"

namespace gm {

inline bool pool_of(const Attrs& attrs) { return attrs.geti("pool", 0) != 0; }

/// (y) or (y, pooled) for a BN output of this shape; throws when it cannot be pooled.
Specs batch_norm_act_outputs(const char* op, const Attrs& attrs, const TensorSpec& y);

}  // namespace gm
