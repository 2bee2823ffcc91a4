// Sums over the pixels of every image and channel, of a tensor that is not written: a warp takes 64
// neighbouring channels, and few threads share a channel, so that next to nothing is left to add at the end.
#pragma once
#include "kernels/batch_norm/bn.cuh"
#include "kernels/common/ceil_div.h"

namespace gm::GM_BACKEND_NS {

constexpr int kBnImageRows = 8;  // threads that share a channel, at most

/// Lanes of a thread: 2 channels where they come in pairs.
template <class F>
void bn_image_lanes(int64_t channels, F&& f) {
  if (channels % 2 == 0) return f(std::integral_constant<int, 2>{});
  f(std::integral_constant<int, 1>{});
}
/// Launch: block (32, rows), grid (slices of 32 N channels, images).
struct BnImageGrid {
  dim3 grid, block;
  BnImageGrid(int64_t images, int64_t pixels, int64_t channels, int lanes)
      : grid(static_cast<unsigned>(ceil_div(channels, 32 * lanes)), static_cast<unsigned>(images)),
        block(32, static_cast<unsigned>(std::clamp<int64_t>(pixels / 28, 1, kBnImageRows))) {
    GM_CHECK(images < 65536, "batch norm: more than 65535 images");
  }
};

/// use(values, sum): adds a pixel, `values` of each tensor, to this thread's sums; put(image, c, totals) once
/// for each of its N channels, in one thread; begin() once before the first use, behind the first loads.
/// Pixels are added in an order that depends on their number alone. Every thread must call. The blocks that
/// start first take the last images: the order of all passes that sum (bn.cuh).
template <class T, int N, int kTensors, int Q, class Begin, class Use, class Put>
__device__ __forceinline__ void bn_image_sums(const T* const (&from)[kTensors], int pixels, int channels,
                                              int c, Begin begin, Use use, Put put) {
  GM_SHARED(float, shared, [Q * N][kBnImageRows][32]);
  constexpr int kInFlight = 7;  // 49 and 196 pixels are whole batches
  const int row = static_cast<int>(threadIdx.y), rows = static_cast<int>(blockDim.y),
            lane = static_cast<int>(threadIdx.x);
  const unsigned image = gridDim.y - 1 - blockIdx.y;
  float sum[Q][N] = {};
  if (c < channels && row < pixels) {
    const uint64_t start = uint64_t{image} * pixels * channels + c;
    BnRaw<T, N> raw[kInFlight][kTensors];
    auto fetch = [&](int first) {
#pragma unroll
      for (int u = 0; u < kInFlight; ++u) {
        const uint64_t at =
            start + uint64_t{static_cast<unsigned>(min(first + u * rows, pixels - 1))} * channels;
#pragma unroll
        for (int t = 0; t < kTensors; ++t) raw[u][t] = bn_load<T, N>(from[t] + at);
      }
    };
    auto take = [&](int u) {
      float v[kTensors][N];
#pragma unroll
      for (int t = 0; t < kTensors; ++t) bn_unpack(raw[u][t], v[t]);
      use(v, sum);
    };
    fetch(row);
    begin();
    for (int first = row;;) {
      // A batch that is not whole is apart: behind a condition each, the loads would be moved to their uses.
      if (first + (kInFlight - 1) * rows < pixels) {
#pragma unroll
        for (int u = 0; u < kInFlight; ++u) take(u);
      } else {
#pragma unroll
        for (int u = 0; u < kInFlight - 1; ++u)
          if (first + u * rows < pixels) take(u);
      }
      first += rows * kInFlight;
      if (first >= pixels) break;
      fetch(first);
    }
  }
#pragma unroll
  for (int q = 0; q < Q; ++q)
#pragma unroll
    for (int n = 0; n < N; ++n) shared[q * N + n][row][lane] = sum[q][n];
  __syncthreads();
  if (row > 0 || c >= channels) return;
#pragma unroll
  for (int n = 0; n < N; ++n) {
    float total[Q];
#pragma unroll
    for (int q = 0; q < Q; ++q) {
      total[q] = sum[q][n];
#pragma unroll  // to a constant, with all reads under way together
      for (int r = 1; r < kBnImageRows; ++r) total[q] += r < rows ? shared[q * N + n][r][lane] : 0.f;
    }
    put(image, c + n, total);
  }
}

}  // namespace gm::GM_BACKEND_NS
