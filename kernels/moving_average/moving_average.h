// Exponential moving average of the flat parameter buffer (Polyak averaging).
//   average = average + (1 - decay) * (p - average)
// in[0]  p      f32 (P)
// in[1]  decay  f32 (1). On the device, so that a captured CUDA graph replays with new values.
// state  average  f32 (P), in place
// No output, no gradient.
#pragma once
#include "kernels/common/dtype.h"

namespace gm {

/// One parameter, in f32. The same text runs on the CPU and on CUDA.
GM_HOST_DEVICE inline float moved(float average, float p, float decay) {
  return average + (1.f - decay) * (p - average);
}

}  // namespace gm
