// How the depthwise CUDA kernels cut their work: shared by the descriptions (planned memory) and the
// launchers. Everything is a function of the shape only, so that sums have the same bits on every card.
#pragma once
#include "kernels/common/op.h"
#include "kernels/depthwise_conv2d/depthwise_conv2d.h"

namespace gm {

constexpr int kDwThreads = 256, kDwTile = 4;  // threads a block; columns of a strip, which one thread takes
/// Blocks of one launch, over all slices of channels: four on each of the 132 processors of an H100.
constexpr int kDwBlocks = 528;

/// Channels of one thread: the window, weights and sums of a 5x5 kernel leave registers for one only.
constexpr int depthwise_lanes(int kernel) { return kernel >= 5 ? 1 : 2; }

/// Channels in slices of `columns` threads of `lanes` channels: at most 32 wide, a multiple of 8 where there
/// are enough channels (whole 16-byte vectors), few idle lanes (72 pairs = 3 x 24).
struct DepthwiseSlices {
  int lanes, columns, rows, slices;
  DepthwiseSlices(int64_t channels, int wanted_lanes) : lanes(channels % wanted_lanes ? 1 : wanted_lanes) {
    const int64_t vectors = channels / lanes, parts = (vectors + 31) / 32,
                  each = (vectors + parts - 1) / parts;
    columns = static_cast<int>(each < 8 ? each : (each + 7) / 8 * 8);
    rows = kDwThreads / columns;
    slices = static_cast<int>((vectors + columns - 1) / columns);
  }
  explicit DepthwiseSlices(const DepthwiseShape& d)
      : DepthwiseSlices(d.channels, depthwise_lanes(d.kernel)) {}
};

/// Blocks that share one slice of channels in backward and leave one partial weight gradient each, at most.
inline int64_t depthwise_gpu_partials(const DepthwiseShape& d) {
  return std::max(1, kDwBlocks / DepthwiseSlices(d).slices);
}
/// Backward: partial weight gradients [partials][taps][C] f32.
inline size_t depthwise_gpu_workspace(const DepthwiseShape& d) {
  return static_cast<size_t>(depthwise_gpu_partials(d) * d.taps() * d.channels) * sizeof(float);
}

}  // namespace gm
