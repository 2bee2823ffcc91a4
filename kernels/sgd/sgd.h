// SGD with momentum over the flat parameter buffer, as PyTorch defines it.
//   g = grad_scale * grad + wd * p         (wd where decay applies)
//   v = momentum * v + g
//   p = p - lr * (nesterov ? g + momentum * v : v)
// attrs  nesterov  0 or 1      half_copy  1: write the bf16 copy
// in[0]  grad   f32 (P), any shape
// in[1]  hyper  f32 (8): lr, momentum, four unused, grad_scale, wd: the last two where adam has them. On the
//        device, so that a captured CUDA graph replays with new values.
// in[2]  decay  u8 (P), optional: nonzero where weight decay applies; absent: everywhere
// state  p, velocity  f32 (P), updated in place; the velocity starts at 0
// out[0] bf16 (P): the new parameters rounded, for the kernels of the next step; only with half_copy
#pragma once
#include "kernels/common/attrs.h"
#include "kernels/common/dtype.h"

namespace gm {

enum SgdHyper : int { kSgdLr = 0, kSgdMomentum = 1, kSgdScale = 6, kSgdDecay = 7 };

/// One parameter, in f32; `decays`: weight decay applies to it. The same text runs on the CPU and on CUDA.
GM_HOST_DEVICE inline void sgd_update(bool nesterov, const float* h, bool decays, float grad, float& p,
                                      float& velocity) {
  const float g = grad * h[kSgdScale] + (decays ? h[kSgdDecay] : 0.f) * p;
  velocity = h[kSgdMomentum] * velocity + g;
  p -= h[kSgdLr] * (nesterov ? g + h[kSgdMomentum] * velocity : velocity);
}

}  // namespace gm
