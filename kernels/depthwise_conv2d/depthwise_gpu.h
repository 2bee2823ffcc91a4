// Scratch of the depthwise CUDA kernels: shared by the descriptions (planned memory) and the launchers.
#pragma once
#include "kernels/common/op.h"
#include "kernels/depthwise_conv2d/depthwise_conv2d.h"

namespace gm {

/// Blocks that share one slice of channels and leave one partial weight gradient each; a function of the
/// shape only, so that sums have the same bits on every card.
inline int64_t depthwise_gpu_partials(const DepthwiseShape& d) {
  return std::clamp<int64_t>(d.images * d.out_height * d.out_width / (8 * d.taps()), 1, 64);
}

/// Backward: partial weight and bias gradients [partials][taps + 1][C] f32.
inline size_t depthwise_gpu_workspace(const DepthwiseShape& d, Pass pass) {
  if (pass == Pass::forward) return 0;
  return static_cast<size_t>(depthwise_gpu_partials(d) * (d.taps() + 1) * d.channels) * sizeof(float);
}

/// Forward with statistics: their partials [partials][2][C] f32 (sums about a pivot).
inline size_t depthwise_gpu_statistics_workspace(const DepthwiseShape& d, Pass pass) {
  return pass == Pass::forward ? static_cast<size_t>(256 * 2 * d.channels) * sizeof(float) : 0;
}

}  // namespace gm
