// An activation chosen at run time, for kernels in which it costs little beside the rest: one kernel for all.
#pragma once
#include "kernels/common/act.cuh"

namespace gm::GM_BACKEND_NS {

__device__ __forceinline__ float act_value_any(Act act, float z) {
  switch (act) {
    case Act::silu:
      return act_value<Act::silu>(z);
    case Act::relu:
      return act_value<Act::relu>(z);
    case Act::relu6:
      return act_value<Act::relu6>(z);
    case Act::sigmoid:
      return act_value<Act::sigmoid>(z);
    case Act::none:
      break;
  }
  return z;
}
/// d act(z) / dz
__device__ __forceinline__ float act_slope_any(Act act, float z) {
  switch (act) {
    case Act::silu:
      return act_slope<Act::silu>(z);
    case Act::relu:
      return act_slope<Act::relu>(z);
    case Act::relu6:
      return act_slope<Act::relu6>(z);
    case Act::sigmoid:
      return act_slope<Act::sigmoid>(z);
    case Act::none:
      break;
  }
  return 1.f;
}

}  // namespace gm::GM_BACKEND_NS
