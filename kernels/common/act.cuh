// Activations for device code.
#pragma once
#include "kernels/activation/activation.h"
#include "kernels/common/dispatch.h"
#include "kernels/common/math.cuh"
#include "kernels/common/simt.h"

namespace gm::GM_BACKEND_NS {

/// T: the type of the tensor, which says how exact it must be.
template <Act A, class T>
__device__ inline float act_value(float x) {
  constexpr bool precise = std::is_same_v<T, float>;
  if constexpr (A == Act::silu) return precise ? precise_silu(x) : silu(x);
  if constexpr (A == Act::relu) return fmaxf(x, 0.f);
  if constexpr (A == Act::relu6) return fminf(fmaxf(x, 0.f), 6.f);
  if constexpr (A == Act::sigmoid) return precise ? precise_sigmoid(x) : sigmoid(x);
  return x;
}
/// d act(x) / dx
template <Act A, class T>
__device__ inline float act_slope(float x) {
  constexpr bool precise = std::is_same_v<T, float>;
  if constexpr (A == Act::silu) return precise ? precise_silu_grad(x) : silu_grad(x);
  if constexpr (A == Act::relu) return x > 0.f ? 1.f : 0.f;
  if constexpr (A == Act::relu6) return x > 0.f && x < 6.f ? 1.f : 0.f;
  if constexpr (A == Act::sigmoid) {
    const float s = precise ? precise_sigmoid(x) : sigmoid(x);
    return s * (1.f - s);
  }
  return 1.f;
}

}  // namespace gm::GM_BACKEND_NS
