// 1x1 convolutions in bf16 on tensor cores, weights in registers:
//   y[p][k] = act(sum over c of x[p][c] w[k][c] + bias[k]) + residual[p][k]
//
// The idea: where channels are few, the bytes and the activations are the work, the products are little. Each
// value of x is read once for up to 256 channels of y, and what follows the sum happens where it is formed.
//
// A block walks over tiles of 64 pixels in shared memory; the next tile is copied (cp.async) while one is
// used, two buffers and one barrier a tile. A warp owns 32 of the K channels, whose weights stay in its
// registers, and takes 16 pixels at a time. The columns of its four products of 8 channels are dealt so that
// a lane holds eight neighbouring channels of a pixel, 16 bytes: product n has in column j the channel
//   8 (j / 2) + 2 n + j % 2        of the run
//
// Turns of shared memory: 4 for 4 products of 2048, whatever C and K.
#pragma once
#include "kernels/common/act_any.cuh"
#include "kernels/common/async_copy.cuh"
#include "kernels/common/card_limits.h"
#include "kernels/common/ceil_div.h"
#include "kernels/common/mma.cuh"
#include "kernels/conv2d/conv2d_after.cuh"
#include "kernels/conv2d/conv2d_pointwise.h"

namespace gm::GM_BACKEND_NS {

/// What a thread does in the walk: its lane's part of the products.
template <int kSteps>
struct PointwiseLane {
  Bf16Pair weights[kSteps][4][2];
  int group, quad, channel;  // first of the lane's eight channels; channel >= k: past the last
  int row, beside;           // where the lane finds its row of four matrices

  __device__ __forceinline__ PointwiseLane(const PointwiseTiles& p, const bf16* w, int column) {
    const int lane = static_cast<int>(threadIdx.x) % 32,
              run = (static_cast<int>(blockIdx.y) * p.columns + column) * 32;
    group = lane / 4, quad = lane % 4, channel = run + 8 * quad, row = lane % 16, beside = lane / 16;
    // A lane needs pair `quad` of each unit of its four rows of w. It loads every fourth unit whole, a
    // quarter of the loads and of the lines that they meet, and the quad exchanges them.
    constexpr int kUnits = 2 * kSteps, kFours = ceil_div(kUnits, 4);
    Bf16Pair fours[4][kFours][4] = {};
#pragma unroll
    for (int n = 0; n < 4; ++n)
#pragma unroll
      for (int f = 0; f < kFours; ++f) {
        const int k = run + group / 2 * 8 + 2 * n + group % 2, unit = 4 * f + quad;
        if (k >= p.k || unit >= p.in_units()) continue;
        const uint4 whole = Vec<bf16, 8>::load(w + k * p.c + 8 * unit).raw;
        fours[n][f][0] = whole.x, fours[n][f][1] = whole.y, fours[n][f][2] = whole.z,
        fours[n][f][3] = whole.w;
      }
#pragma unroll
    for (int n = 0; n < 4; ++n)
#pragma unroll
      for (int f = 0; f < kFours; ++f) {
        turn_quad(fours[n][f]);
#pragma unroll
        for (int unit = 4 * f; unit < min(4 * f + 4, kUnits); ++unit)
          weights[unit / 2][n][unit % 2] = fours[n][f][unit % 4];
      }
  }
  /// The sums of two pixels, `group` and `group` + 8 of the 16 in the tile, whose first is `first`.
  __device__ __forceinline__ void products(const uint4* first, int units, float (&v)[2][8]) const {
    const int pitch = units | 1;
    float sum[4][4] = {};
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      Bf16Pair a[4];
      // Past the last unit of x the weights are zero.
      load_matrices<false>(first + row * pitch + min(2 * s + beside, units - 1), a);
#pragma unroll
      for (int n = 0; n < 4; ++n) mma_bf16(sum[n], a, weights[s][n]);
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) v[0][i] = sum[i / 2][i % 2], v[1][i] = sum[i / 2][2 + i % 2];
  }
};

/// Begins to copy a tile of x to one of the two buffers.
__device__ __forceinline__ void pointwise_copy(const PointwiseTiles& p, const bf16* x, uint4* tiles, int tile,
                                               int buffer) {
  const int units = p.in_units(), first = tile * kPointwisePixels,
            left = min(p.pixels - first, kPointwisePixels) * units,
            inverse = (1 << 16) / units + 1;  // exact for the units of a tile
  for (int e = static_cast<int>(threadIdx.x); e < p.tile_units(); e += static_cast<int>(blockDim.x)) {
    const int pixel = e * inverse >> 16;
    async_copy16(tiles + buffer * p.held_units() + e + pixel * (p.in_pitch() - units),
                 x + (e < left ? int64_t{first} * p.c + e * 8 : 0), e < left);
  }
}
/// The first tile of a block: on its way while the weights are loaded.
__device__ __forceinline__ void pointwise_begin(const PointwiseTiles& p, const bf16* x, uint4* tiles) {
  pointwise_copy(p, x, tiles, static_cast<int>(blockIdx.x), 0);
}

/// Walks over the tiles of x of this block, behind pointwise_begin: for each pixel of the lane's, the
/// `which`th of two, first before(which, pixel), then use(which, pixel, sums). What is loaded before the
/// products does not wait behind them, nor behind the stores of `use`.
template <int kSteps, class Before, class Use>
__device__ __forceinline__ void pointwise_walk(const PointwiseTiles& p, const bf16* x, uint4* tiles,
                                               const PointwiseLane<kSteps>& lane, int warp_row, Before before,
                                               Use use) {
  const int units = p.in_units(), pitch = p.in_pitch();
  int tile = static_cast<int>(blockIdx.x), buffer = 0;
  for (; tile < p.tiles; tile += static_cast<int>(gridDim.x), buffer ^= 1) {
    async_wait();
    __syncthreads();  // the tile is there, and nobody reads the other one any more
    const int next = tile + static_cast<int>(gridDim.x);
    if (next < p.tiles) pointwise_copy(p, x, tiles, next, buffer ^ 1);
    const uint4* const held = tiles + buffer * p.held_units();
    for (int chunk = 16 * warp_row; chunk < kPointwisePixels; chunk += 16 * p.rows) {
      const int first = tile * kPointwisePixels + chunk + lane.group;
#pragma unroll
      for (int which = 0; which < 2; ++which)
        if (first + 8 * which < p.pixels) before(which, first + 8 * which);
      float sums[2][8];
      lane.products(held + chunk * pitch, units, sums);
#pragma unroll
      for (int which = 0; which < 2; ++which)
        if (first + 8 * which < p.pixels) use(which, first + 8 * which, sums[which]);
    }
  }
}

// Grid: walkers x slices; block: columns x rows warps. bias, residual: may be null.
template <int kSteps>
__global__ __launch_bounds__(32 * kPointwiseWarps, pointwise_blocks(kSteps)) void conv2d_pointwise_kernel(
    PointwiseTiles p, const bf16* x, const bf16* w, const float* bias, Act act, const bf16* residual,
    bf16* y) {
  await_launch_before();
  GM_DYN_SHARED(uint4, shared);
  const int warp = static_cast<int>(threadIdx.x) / 32, warp_row = warp / p.columns;
  pointwise_begin(p, x, shared);
  const PointwiseLane<kSteps> lane(p, w, warp - warp_row * p.columns);
  float shift[8] = {};
  if (bias && lane.channel < p.k) load_lanes<float, 8>(bias + lane.channel, shift);
  const bool mine = lane.channel < p.k;
  Vec<bf16, 8> more[2];
  auto before = [&](int which, int pixel) {
    if (residual && mine) more[which] = Vec<bf16, 8>::load(residual + int64_t{pixel} * p.k + lane.channel);
  };
  pointwise_walk(p, x, shared, lane, warp_row, before, [&](int which, int pixel, float(&v)[8]) {
    if (!mine) return;
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] += shift[i];
    if (act != Act::none)
      act_choose(act, [&](auto a) {
#pragma unroll
        for (int i = 0; i < 8; ++i) v[i] = act_value<decltype(a)::value, bf16>(v[i]);
      });
    if (residual) add_held(more[which], v);
    store_lanes<bf16, 8>(y + int64_t{pixel} * p.k + lane.channel, v);
  });
}

/// Calls f(std::integral_constant<int, n>) with the first n of the rising list that is not below steps.
template <int kSteps, int... kMore, class F>
void steps_switch(int steps, F f) {
  if constexpr (sizeof...(kMore) > 0)
    if (steps > kSteps) return steps_switch<kMore...>(steps, f);
  f(std::integral_constant<int, kSteps>{});
}

/// The grid of a walk by `kernel` that leaves no sums: as many blocks as the card holds at once, or fewer,
/// all of which take as many tiles but for the last few.
template <class Kernel>
dim3 pointwise_grid(const PointwiseTiles& p, Kernel kernel, const Context& ctx) {
  const int card = resident_blocks(kernel, 32 * p.warps(), p.tiles_bytes()) * multiprocessors(ctx),
            rounds = ceil_div(p.tiles, std::max(1, card / p.slices));
  return dim3(static_cast<unsigned>(ceil_div(p.tiles, rounds)), static_cast<unsigned>(p.slices));
}

inline void launch_pointwise(const PointwiseTiles& p, const Bf16Conv& t, const Context& ctx) {
  steps_switch<1, 2, 3, 4, 5, 8, 10, 12, 16>(p.steps, [&](auto steps) {
    GM_LAUNCH((conv2d_pointwise_kernel<steps.value>),
              pointwise_grid(p, conv2d_pointwise_kernel<steps.value>, ctx), unsigned(32 * p.warps()),
              p.tiles_bytes(), ctx.stream, p, t.x, t.w, t.bias, t.act, t.residual, t.y);
  });
}

}  // namespace gm::GM_BACKEND_NS
