// Adam and AdamW over the flat parameter buffer (Kingma & Ba 2015; Loshchilov & Hutter 2019).
//   g = grad_scale * grad                  (+ wd * p where decay applies, when not decoupled: L2)
//   p = p - lr * wd * p                    where decay applies, when decoupled (AdamW)
//   m = beta1 * m + (1 - beta1) * g
//   v = beta2 * v + (1 - beta2) * g^2
//   epsilon_hat 0:  p = p - lr * (m / bc1) / (sqrt(v / bc2) + eps)         Algorithm 1 of the paper; PyTorch
//   epsilon_hat 1:  p = p - lr * sqrt(bc2) / bc1 * m / (sqrt(v) + eps)     Keras, TensorFlow
// attrs  epsilon_hat  0 or 1      decoupled  0 or 1      half_copy  1: write the bf16 copy
// in[0]  grad   f32 (P), any shape
// in[1]  hyper  f32 (8): lr, beta1, beta2, eps, bc1 = 1 - beta1^t, bc2 = 1 - beta2^t, grad_scale, wd.
//        On the device, so that a captured CUDA graph replays with new values. Read as given.
// in[2]  decay  u8 (P), optional: nonzero where weight decay applies; absent: everywhere
// state  p, m, v  f32 (P), updated in place
// out[0] bf16 (P): the new parameters rounded, for the kernels of the next step; only with half_copy
#pragma once
#include <cmath>

#include "kernels/common/attrs.h"
#include "kernels/common/dtype.h"

namespace gm {

enum AdamHyper : int {
  kAdamLr,
  kAdamBeta1,
  kAdamBeta2,
  kAdamEps,
  kAdamBc1,
  kAdamBc2,
  kAdamScale,
  kAdamDecay
};

struct AdamMode {
  bool epsilon_hat = false, decoupled = false;
};
inline AdamMode adam_mode(const Attrs& attrs) {
  return {attrs.geti("epsilon_hat", 0) != 0, attrs.geti("decoupled", 0) != 0};
}

/// One parameter, in f32; `decays`: weight decay applies to it. The same text runs on the CPU and on CUDA.
GM_HOST_DEVICE inline void adam_update(AdamMode mode, const float* h, bool decays, float grad, float& p,
                                       float& m, float& v) {
  const float decay = decays ? h[kAdamDecay] : 0.f;
  float g = grad * h[kAdamScale];
  if (mode.decoupled)
    p -= h[kAdamLr] * decay * p;
  else
    g += decay * p;
  m = h[kAdamBeta1] * m + (1.f - h[kAdamBeta1]) * g;
  v = h[kAdamBeta2] * v + (1.f - h[kAdamBeta2]) * g * g;
  if (mode.epsilon_hat)
    p -= h[kAdamLr] * sqrtf(h[kAdamBc2]) / h[kAdamBc1] * m / (sqrtf(v) + h[kAdamEps]);
  else
    p -= h[kAdamLr] * (m / h[kAdamBc1]) / (sqrtf(v / h[kAdamBc2]) + h[kAdamEps]);
}

}  // namespace gm
