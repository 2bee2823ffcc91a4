// Batch normalisation over all pixels, per channel:
//   training   mean = E[x], var = E[(x - mean)^2] (biased, of this batch)
//              running = momentum * running + (1 - momentum) * batch        (momentum in the Keras sense)
//   inference  mean, var = running statistics, which are not changed
//   y = gamma * (x - mean) * inv_std + beta,   inv_std = 1 / sqrt(var + eps)
// attrs    eps, momentum
//          training  1 / 0
//          unbiased  0: the running variance gets the biased batch variance (Keras 3)
//                    1: it gets n / (n - 1) times that (PyTorch)
// in[0]    x      (..., C) f32 or bf16
// in[1]    gamma  (C) f32, parameter          in[2]  beta  (C) f32, parameter
// state[0] running mean (C) f32               state[1] running variance (C) f32
// saved[0] mean (C) f32                       saved[1] inv_std (C) f32; of the running ones if not training
// out[0]   y      like x
// Backward, P = pixels, xhat = (x - mean) * inv_std:
//   dbeta = sum dy,  dgamma = sum dy * xhat
//   dx = gamma * inv_std * (dy - dbeta / P - xhat * dgamma / P)       training
//   dx = gamma * inv_std * dy                                         frozen (training = 0)
// It reads x and gamma.
#pragma once
#include "kernels/common/attrs.h"
#include "kernels/common/op.h"

namespace gm {

struct BatchNormAttrs {
  float eps, momentum;
  bool training, unbiased;

  explicit BatchNormAttrs(const Attrs& a)
      : eps(static_cast<float>(a.get("eps"))),
        momentum(static_cast<float>(a.get("momentum", 0.9))),
        training(a.geti("training") != 0),
        unbiased(a.geti("unbiased", 0) != 0) {}
};

/// Parts of the descriptions of all ops with a BN inside.
/// Throws unless eps > 0, 0 <= momentum <= 1, gamma and beta are f32 (C).
void check_batch_norm(const char* op, const Attrs& attrs, int64_t channels, const TensorSpec& gamma,
                      const TensorSpec& beta);
/// Two f32 vectors: running mean and variance, or saved mean and inv_std.
Specs two_vectors(int64_t channels);

}  // namespace gm
