// How CUDA kernels split a pass over (N, HW, C) that keeps channels apart and sums over pixels: global
// pooling, squeeze-excite.
//
// A block is `width` threads along the channels by `rows` threads along the pixels of one image. A thread
// owns `lanes` neighbouring channels (one 16-byte vector, or one element when C is not a multiple), so that a
// row of threads reads up to 512 neighbouring bytes, and walks every (rows * chunks)-th pixel. grid =
// (N, slices, chunks). Where N * slices blocks would not fill a card, the pixels of an image are dealt to
// several chunks; their partial sums go through the workspace to a second kernel, which adds them in order.
// The split depends on the shape alone: the same bits on every card.
#pragma once
#include <algorithm>
#include <cstdint>

#include "kernels/common/ceil_div.h"
#include "kernels/common/view.h"

namespace gm {

struct ChannelTiles {
  static constexpr int kThreads = 256;
  int lanes = 1, width = 1, rows = 1, slices = 1, chunks = 1;
};

inline ChannelTiles channel_tiles(const TensorSpec& x) {
  constexpr int64_t kBlocks = 512, kPixelsPerThread = 4;  // four blocks for each of 128 multiprocessors
  const int64_t n = x.shape[0], hw = x.shape[1] * x.shape[2], c = x.shape[3];
  ChannelTiles t;
  const int vector = static_cast<int>(16 / dtype_bytes(x.dtype));
  t.lanes = c % vector == 0 ? vector : 1;
  const int64_t groups = c / t.lanes;
  while (t.width < 32 && t.width < groups) t.width *= 2;
  t.rows = ChannelTiles::kThreads / t.width;
  t.slices = static_cast<int>(ceil_div(groups, t.width));
  const int64_t wanted = kBlocks / std::max<int64_t>(1, n * t.slices),
                most = hw / (t.rows * kPixelsPerThread);
  t.chunks = static_cast<int>(std::max<int64_t>(1, std::min(wanted, most)));
  return t;
}

/// Bytes of the partial results: (chunks, N, C) words of 4 bytes for each of `quantities`; none for one
/// chunk.
inline size_t channel_tiles_workspace(const TensorSpec& x, int quantities) {
  const ChannelTiles t = channel_tiles(x);
  return t.chunks == 1 ? 0 : size_t{4} * quantities * t.chunks * x.shape[0] * x.shape[3];
}

}  // namespace gm
