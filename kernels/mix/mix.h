// Mixup (Zhang et al. 2018, arXiv:1710.09412) and CutMix (Yun et al. 2019, arXiv:1905.04899) of a batch:
// image i with image N - 1 - i, one draw for the whole batch.
//   mixup   y_i = lambda x_i + (1 - lambda) x_{N-1-i}
//   cutmix  y_i = x_i outside a box, x_{N-1-i} inside; lambda = 1 - area of the box / (H W)
//   t_i = lambda s_i + (1 - lambda) s_{N-1-i}                       (s_i: soft label, or onehot(label_i))
// lambda ~ Beta(alpha, alpha). The box has sides sqrt(1 - lambda) of the image's and a uniform centre; what
// sticks out is cut off before its area is taken, as in the authors' code.
// attrs  mixup, cutmix  alpha in [0, 1]; 0: not used. With both, either one with probability 1/2
//        classes        C
// in[0]  x       (N, H, W, channels), f32 or bf16
// in[1]  labels  i32 (N), all in 0 .. C-1; or f32 (N, C) soft labels whose rows sum to 1
// out[0] y  as x     out[1] t  f32 (N, C), rows sum to 1
// No gradient. Without a step (inference) the op is the identity. Draw k of a step are the words of the
// Philox block with key = seed and counter = (k, RngUse::op << 24 | 1, 0, step): the 1 keeps it apart from
// dropout.
#pragma once
#include <cmath>

#include "kernels/common/attrs.h"
#include "kernels/common/context.h"
#include "kernels/common/philox.h"

namespace gm {

struct MixParams {
  float mixup = 0, cutmix = 0;
};
inline MixParams mix_params(const Attrs& attrs) {
  return {static_cast<float>(attrs.get("mixup", 0)), static_cast<float>(attrs.get("cutmix", 0))};
}

/// What happens to a batch: pixels of the box come from the partner, all others are weighed with `weight`.
struct MixDraw {
  float weight = 1;  // of the image itself outside the box
  float lambda = 1;  // of its label
  int top = 0, bottom = 0, left = 0, right = 0;

  GM_HOST_DEVICE float at(int row, int column) const {
    return row >= top && row < bottom && column >= left && column < right ? 0.f : weight;
  }
};

namespace mix_detail {

GM_HOST_DEVICE inline Philox4 block(const StepState& step, uint32_t k) {
  return philox(step.seed, k, static_cast<uint32_t>(RngUse::op) << 24 | 1u, 0,
                static_cast<uint32_t>(step.step));
}
/// Beta(alpha, alpha) for alpha <= 1 (Joehnk 1964): at least one half of the pairs is taken.
GM_HOST_DEVICE inline float beta(const StepState& step, float alpha) {
  for (uint32_t k = 1; k <= 64; ++k) {
    const Philox4 r = block(step, k);
    for (int pair = 0; pair < 2; ++pair) {
      const uint32_t a = pair ? r.v[2] : r.v[0], b = pair ? r.v[3] : r.v[1];
      const float x = powf(philox_uniform(a), 1.f / alpha), y = powf(philox_uniform(b), 1.f / alpha);
      if (x + y > 0.f && x + y <= 1.f) return x / (x + y);
    }
  }
  return 0.5f;
}

}  // namespace mix_detail

GM_HOST_DEVICE inline MixDraw mix_draw(const MixParams& p, const StepState* step, int height, int width) {
  MixDraw d;
  if (!step || (p.mixup <= 0.f && p.cutmix <= 0.f)) return d;
  const Philox4 r = mix_detail::block(*step, 0);
  const bool cut = p.mixup <= 0.f || (p.cutmix > 0.f && philox_uniform(r.v[0]) < 0.5f);
  d.lambda = mix_detail::beta(*step, cut ? p.cutmix : p.mixup);
  if (!cut) {
    d.weight = d.lambda;
    return d;
  }
  const float side = sqrtf(1.f - d.lambda);
  const int h = static_cast<int>(static_cast<float>(height) * side),
            w = static_cast<int>(static_cast<float>(width) * side);
  const int y = static_cast<int>(static_cast<uint64_t>(r.v[1]) * static_cast<uint64_t>(height) >> 32),
            x = static_cast<int>(static_cast<uint64_t>(r.v[2]) * static_cast<uint64_t>(width) >> 32);
  auto clip = [](int v, int high) { return v < 0 ? 0 : v > high ? high : v; };
  d.top = clip(y - h / 2, height), d.bottom = clip(y + h / 2, height);
  d.left = clip(x - w / 2, width), d.right = clip(x + w / 2, width);
  d.lambda =
      1.f - static_cast<float>((d.bottom - d.top) * (d.right - d.left)) / static_cast<float>(height * width);
  return d;
}

}  // namespace gm
