// How the depthwise CUDA kernels cut their work: shared by the descriptions (planned memory) and the
// launchers. Everything is a function of the shape only, so that sums have the same bits on every card.
#pragma once
#include "kernels/common/op.h"
#include "kernels/depthwise_conv2d/depthwise_conv2d.h"

namespace gm {

constexpr int kDwThreads = 256, kDwLanes = 2, kDwTile = 4;  // threads, channels a thread, columns a thread

/// Channels in slices of `columns` threads of `lanes` channels: at most 32 wide, a multiple of 8 where there
/// are enough channels (whole 32-byte sectors), few idle lanes (72 pairs = 3 x 24).
struct DepthwiseSlices {
  int lanes, columns, rows, slices;
  explicit DepthwiseSlices(int64_t channels, int threads = kDwThreads)
      : lanes(channels % kDwLanes ? 1 : kDwLanes) {
    const int64_t vectors = channels / lanes, parts = (vectors + 31) / 32,
                  each = (vectors + parts - 1) / parts;
    columns = static_cast<int>(each < 8 ? each : (each + 7) / 8 * 8);
    rows = threads / columns;
    slices = static_cast<int>((vectors + columns - 1) / columns);
  }
};

/// Blocks that share one slice of channels in backward and leave one partial weight gradient each.
inline int64_t depthwise_gpu_partials(const DepthwiseShape& d) {
  const int64_t most = std::max(1, 512 / DepthwiseSlices(d.channels).slices);
  return std::clamp<int64_t>(d.images * d.out_height * d.out_width / (8 * d.taps()), 1, most);
}
/// Backward: partial weight gradients [partials][taps][C] f32.
inline size_t depthwise_gpu_workspace(const DepthwiseShape& d) {
  return static_cast<size_t>(depthwise_gpu_partials(d) * d.taps() * d.channels) * sizeof(float);
}

}  // namespace gm
