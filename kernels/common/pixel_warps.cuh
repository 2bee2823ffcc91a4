// Device side of passes that reduce over the channels of each pixel (spatial attention): one warp per pixel.
// A lane reads one 16-byte vector (or one element when C is not a multiple) of every 32, so that a warp reads
// 512 neighbouring bytes; the reduction is a butterfly of shuffles. A pixel's result does not depend on the
// grid.
#pragma once
#include "kernels/common/channel_tiles.cuh"
#include "kernels/common/reduce.cuh"

namespace gm::GM_BACKEND_NS {

constexpr int kPixelWarps = 8;
inline unsigned pixels_grid(int64_t pixels, const Context& ctx) { return grid_for(pixels, kPixelWarps, ctx); }
inline dim3 pixels_block() { return dim3(32, kPixelWarps); }

/// Calls body(pixel) for each pixel, by all lanes of one warp.
template <class Body>
__device__ __forceinline__ void for_pixels(int64_t pixels, Body body) {
  const int64_t first = blockIdx.x * int64_t{kPixelWarps} + threadIdx.y,
                stride = int64_t{gridDim.x} * kPixelWarps;
  for (int64_t p = first; p < pixels; p += stride) body(p);
}
/// Every V channels of this lane, as in_batches: those of 1280 in bf16, what the networks end with, at once.
template <int V, class Held, class Load, class Use>
__device__ __forceinline__ void for_channels(int64_t channels, Load load, Use use) {
  in_batches<Held, 5>(int64_t{threadIdx.x} * V, int64_t{32 * V}, channels, load, use);
}

/// Sum and peak of what a lane has seen, then of the warp.
struct ChannelPool {
  float sum = 0;
  Peak peak{-INFINITY, INT32_MAX};

  __device__ __forceinline__ void add(float v, int64_t c) {
    sum += v;
    peak.meet(v, static_cast<int>(c));
  }
  /// All lanes must call; all lanes get the same.
  __device__ __forceinline__ void join() {
    sum = warp_sum(sum);
    peak.across(32);
  }
};

/// Calls f with Lanes<V> for the widest vector that divides the channels.
template <class T, class F>
void pixel_lanes_switch(int64_t channels, F&& f) {
  if (channels % kVecLanes<T>) return f(Lanes<1>{});
  f(Lanes<kVecLanes<T>>{});
}

}  // namespace gm::GM_BACKEND_NS
