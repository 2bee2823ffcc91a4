// An activation chosen at run time, for kernels in which it costs little beside the rest: one kernel for all.
// T: the type of the tensor.
#pragma once
#include "kernels/common/act.cuh"

namespace gm::GM_BACKEND_NS {

/// f(std::integral_constant<Act, ...>) of the activation.
template <class F>
__device__ __forceinline__ auto act_choose(Act act, F f) {
  switch (act) {
    case Act::silu:
      return f(std::integral_constant<Act, Act::silu>{});
    case Act::relu:
      return f(std::integral_constant<Act, Act::relu>{});
    case Act::relu6:
      return f(std::integral_constant<Act, Act::relu6>{});
    case Act::sigmoid:
      return f(std::integral_constant<Act, Act::sigmoid>{});
    case Act::none:
      break;
  }
  return f(std::integral_constant<Act, Act::none>{});
}
template <class T>
__device__ __forceinline__ float act_value_any(Act act, float z) {
  return act_choose(act, [&](auto a) { return act_value<decltype(a)::value, T>(z); });
}
/// d act(z) / dz
template <class T>
__device__ __forceinline__ float act_slope_any(Act act, float z) {
  return act_choose(act, [&](auto a) { return act_slope<decltype(a)::value, T>(z); });
}

}  // namespace gm::GM_BACKEND_NS
