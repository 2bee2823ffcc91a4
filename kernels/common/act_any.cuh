// An activation chosen at run time, for kernels in which it costs little beside the rest: one kernel for all.
// T: the type of the tensor.
#pragma once
#include "kernels/common/act.cuh"

namespace gm::GM_BACKEND_NS {

template <class T>
__device__ __forceinline__ float act_value_any(Act act, float z) {
  switch (act) {
    case Act::silu:
      return act_value<Act::silu, T>(z);
    case Act::relu:
      return act_value<Act::relu, T>(z);
    case Act::relu6:
      return act_value<Act::relu6, T>(z);
    case Act::sigmoid:
      return act_value<Act::sigmoid, T>(z);
    case Act::none:
      break;
  }
  return z;
}
/// d act(z) / dz
template <class T>
__device__ __forceinline__ float act_slope_any(Act act, float z) {
  switch (act) {
    case Act::silu:
      return act_slope<Act::silu, T>(z);
    case Act::relu:
      return act_slope<Act::relu, T>(z);
    case Act::relu6:
      return act_slope<Act::relu6, T>(z);
    case Act::sigmoid:
      return act_slope<Act::sigmoid, T>(z);
    case Act::none:
      break;
  }
  return 1.f;
}

}  // namespace gm::GM_BACKEND_NS
