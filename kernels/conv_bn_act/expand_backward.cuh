// Backward pass of an expanding 1x1 convolution with batch norm and SiLU behind it, from the batch norm's
// sums on, in bf16 on tensor cores. With da the gradient that comes in, K wide channels and C narrow ones:
//   dz = da silu'(BN(yc));  dyc = scale dz - c - q (yc - mean)   as batch_norm's backward
//   dx[p][c] = sum over k of dyc[p][k] w[k][c];  dw[k][c] = sum over p of dyc[p][k] x[p][c]
//
// The idea: the wide tensors are the work. Apart, the batch norm reads da and yc and writes dyc, which each
// product reads once more: five passes. Here da and yc are read once and dyc lives in shared memory only:
// two.
//
// A block walks over tiles of 32 pixels; the next tile is copied (cp.async) while the products of one run. A
// thread turns the units of da that it copied into dyc where they lie, rounded to bf16 as they are apart, and
// both products take dyc from there:
//   dx  a warp owns 16 pixels x 16 channels; the weights stay in shared memory
//   dw  a warp owns up to two runs of 16 of the K channels, all C, and keeps their sums in registers over all
//       tiles of its block; ldmatrix turns dyc and x, whose pixels are the depth
// The buffers of dyc and x alternate, so that one barrier a tile is enough; that of yc is a thread's own.
//
// Shared memory: four coefficients a channel [coefficient][half of a unit][unit], weights [k][c], two tiles
// of dyc [pixel][k], two of x [pixel][c], one of yc [unit].
//
// Each block leaves one partial sum of dw, sum_partials_kernel adds them in order: there are as many as the
// card holds blocks at once.
#pragma once
#include "kernels/batch_norm/bn.cuh"
#include "kernels/common/async_copy.cuh"
#include "kernels/common/mma.cuh"
#include "kernels/common/partials.cuh"
#include "kernels/conv_bn_act/expand.h"

namespace gm::GM_BACKEND_NS {

/// The coefficients of dyc by channel; the mean is folded into the two that stand alone, as in
/// bn_backward_apply_kernel.
__device__ __forceinline__ void expand_coefficients(const BnFinishBackward& bn, int k, float* to) {
  for (int channel = static_cast<int>(threadIdx.x); channel < k; channel += static_cast<int>(blockDim.x)) {
    const float mean = bn.mean[channel], scale = bn.gamma[channel] * bn.inv_std[channel],
                slope = bn.frozen ? 0.f : bn.v.q[channel], shift = bn.frozen ? 0.f : bn.v.c[channel];
    const float value[4] = {scale, bn.beta[channel] - mean * scale, shift - mean * slope, slope};
    const int unit = channel / 8, half = channel / 4 % 2, units = k / 8;
#pragma unroll
    for (int v = 0; v < 4; ++v) to[((v * 2 + half) * units + unit) * 4 + channel % 4] = value[v];
  }
}

/// One unit of dyc.
__device__ __forceinline__ uint4 expand_gradient(const uint4& da, const uint4& yc, const float* coefficients,
                                                 int units, int unit) {
  float dz[8], y[8];
  Vec<bf16, 8>{da}.to_float(dz);
  Vec<bf16, 8>{yc}.to_float(y);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float value[4][4];  // scale, beta, shift, slope
#pragma unroll
    for (int v = 0; v < 4; ++v)
      load_lanes<float, 4>(coefficients + ((2 * v + half) * units + unit) * 4, value[v]);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float &v = y[half * 4 + i], d = dz[half * 4 + i];
      d *= act_slope<Act::silu, bf16>(v * value[0][i] + value[1][i]);
      v = value[0][i] * d - (value[2][i] + value[3][i] * v);
    }
  }
  return Vec<bf16, 8>::from_float(y).raw;
}

// NT: units of the C channels. dx, partials (walkers, K, C): null where they are not wanted.
template <int NT, int kWarps>
__global__ void __launch_bounds__(32 * kWarps, kWarps == 8 ? 2 : 1)
    conv_bn_expand_backward_kernel(ExpandBackward p, const bf16* da, const bf16* yc, const bf16* x,
                                   const bf16* w, BnFinishBackward bn, bf16* dx, bool accumulate,
                                   float* partials) {
  await_launch_before();
  GM_DYN_SHARED(uint4, shared);
  constexpr int kThreads = 32 * kWarps;
  float* const coefficients = reinterpret_cast<float*>(shared);
  uint4* const weights = shared + p.coefficient_units();
  uint4* const tile_yc = weights + p.weight_units();
  uint4* const tiles_dyc = tile_yc + p.tile_units();
  uint4* const tiles_x = tiles_dyc + 2 * p.gradient_units();
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32, group = lane / 4,
            quad = lane % 4;
  constexpr int narrow = NT, in_pitch = NT | 1;  // units of a pixel of x, and with what parts them
  const int wide = p.out_units(), pitch = p.out_pitch();

  // Calls f(unit of the tile, its place among dyc, its place in a pixel) for each of this thread's units.
  const int inverse = (1 << 20) / wide + 1;  // exact for units of a tile
  auto own_units = [&](auto f) {
#pragma unroll(kWarps == 8 ? 4 : 1)
    for (int e = thread; e < p.tile_units(); e += kThreads) {
      const int pixel = e * inverse >> 20, unit = e - pixel * wide;
      f(e, pixel * pitch + unit, unit);
    }
  };
  // A tile of da, yc and x is one run of units each; one of x is as many as there are threads at most.
  const int x_row = thread / narrow, x_place = x_row * in_pitch + thread - x_row * narrow;
  auto load = [&](int next, int buffer) {
    const int64_t first = int64_t{next} * kExpandRows;
    const int left = min(p.pixels - next * kExpandRows, kExpandRows);
    own_units([&](int e, int place, int) {
      const bool inside = e < left * wide;
      const int64_t at = inside ? (first * wide + e) * 8 : 0;
      async_copy16(tiles_dyc + buffer * p.gradient_units() + place, da + at, inside);
      async_copy16(tile_yc + e, yc + at, inside);
    });
    if (x_row < kExpandRows)
      async_copy16(tiles_x + buffer * p.input_units() + x_place,
                   x + (x_row < left ? first * p.c + thread * 8 : 0), x_row < left);
  };
  int tile = static_cast<int>(blockIdx.x), buffer = 0;
  load(tile, buffer);
  for (int e = thread; e < p.k * narrow; e += kThreads) {
    const int k = e / narrow;
    async_copy16(weights + k * in_pitch + e - k * narrow, w + e * 8, true);
  }
  expand_coefficients(bn, p.k, coefficients);
  __syncthreads();  // the coefficients are there

  // Where a lane finds its row of four matrices: 16 rows of two units beside each other, and the same turned,
  // where the depth runs down.
  const int row = lane % 16, beside = lane / 16, turned_row = lane / 16 * 8 + lane % 8, below = lane / 8 % 2;
  const int pixels16 = warp % 2 * 16, first_column = warp / 2 * 2;  // dx of this warp
  float sum[2][NT][4] = {};

  for (; tile < p.tiles; tile += static_cast<int>(gridDim.x), buffer ^= 1) {
    uint4* const dyc = tiles_dyc + buffer * p.gradient_units();
    const uint4* const x_tile = tiles_x + buffer * p.input_units();
    const int64_t first = int64_t{tile} * kExpandRows;
    const int left = p.pixels - tile * kExpandRows;
    async_wait();
    own_units([&](int e, int place, int unit) {  // past the last pixel too: x is zero there
      dyc[place] = expand_gradient(dyc[place], tile_yc[e], coefficients, wide, unit);
    });
    __syncthreads();  // dyc and x are there, and nobody reads the other buffers any more
    const int next = tile + static_cast<int>(gridDim.x);
    if (next < p.tiles) load(next, buffer ^ 1);

    if (dx && first_column < narrow) {
      float out[2][4] = {};
      const uint4* const a_row = dyc + (pixels16 + row) * pitch + beside;
      const uint4* const b_row = weights + row * in_pitch + min(first_column + beside, narrow - 1);
      for (int depth = 0; depth < p.k / 16; ++depth) {
        Bf16Pair a[4], b[4];
        load_matrices<false>(a_row + 2 * depth, a);
        load_matrices<true>(b_row + 16 * depth * in_pitch, b);
        mma_bf16(out[0], a, {b[0], b[1]});
        mma_bf16(out[1], a, {b[2], b[3]});
      }
#pragma unroll
      for (int n = 0; n < 2; ++n)
#pragma unroll
        for (int lower = 0; lower < 2; ++lower) {
          const int pixel = pixels16 + group + 8 * lower;
          if (pixel >= left || first_column + n >= narrow) continue;
          float v[2] = {out[n][2 * lower], out[n][2 * lower + 1]};
          put_lanes<bf16, 2>(dx + (first + pixel) * p.c + (first_column + n) * 8 + 2 * quad, v, accumulate);
        }
    }
    if (partials) {
#pragma unroll
      for (int step = 0; step < kExpandRows / 16; ++step) {
        Bf16Pair a[2][4];
        // Also past the last run, whose sums do not count: a branch would cost more.
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int run = min(warp + i * kWarps, wide / 2 - 1);
          load_matrices<true>(dyc + (16 * step + turned_row) * pitch + 2 * run + below, a[i]);
        }
#pragma unroll
        for (int n = 0; n < NT; n += 2) {
          Bf16Pair b[4];
          load_matrices<true>(x_tile + (16 * step + row) * in_pitch + n + (n + 1 < NT ? beside : 0), b);
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            mma_bf16(sum[i][n], a[i], {b[0], b[1]});
            if (n + 1 < NT) mma_bf16(sum[i][n + 1 < NT ? n + 1 : n], a[i], {b[2], b[3]});
          }
        }
      }
    }
  }

  if (!partials) return;
  float* const to = partials + int64_t{blockIdx.x} * p.k * p.c;
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int lower = 0; lower < 2; ++lower) {
      const int k = (warp + i * kWarps) * 16 + group + 8 * lower;
      if (k >= p.k) continue;
#pragma unroll
      for (int n = 0; n < NT; ++n) {
        const float v[2] = {sum[i][n][2 * lower], sum[i][n][2 * lower + 1]};
        store_lanes<float, 2>(to + k * p.c + n * 8 + 2 * quad, v);
      }
    }
}

/// dx, dw: null where they are not wanted. partials: p.partial_bytes() of scratch.
inline void launch_expand_backward(const ExpandBackward& p, const bf16* da, const bf16* yc, const bf16* x,
                                   const bf16* w, const BnFinishBackward& bn, const GradView& dx,
                                   const GradView& dw, float* partials, const Context& ctx) {
  const int walkers = p.walkers(summing_multiprocessors(ctx));
  auto launch = [&](auto units, auto warps) {
    GM_LAUNCH((conv_bn_expand_backward_kernel<units.value, warps.value>), static_cast<unsigned>(walkers),
              32 * warps.value, p.shared_bytes(), ctx.stream, p, da, yc, x, w, bn,
              dx ? dx.view.as<bf16>() : nullptr, dx.mode == GradMode::accumulate, dw ? partials : nullptr);
    if (dw)
      launch_sum_partials(partials, int64_t{p.k} * p.c, walkers, dw.view.as<float>(),
                          dw.mode == GradMode::accumulate, ctx);
  };
  using std::integral_constant;
  const int units = p.in_units();
  if (p.warps == 8) {
    auto eight = [&](auto n) { launch(n, integral_constant<int, 8>{}); };
    if (units == 2) return eight(integral_constant<int, 2>{});
    if (units == 3) return eight(integral_constant<int, 3>{});
    if (units == 4) return eight(integral_constant<int, 4>{});
    if (units == 5) return eight(integral_constant<int, 5>{});
    return eight(integral_constant<int, 8>{});
  }
  auto fourteen = [&](auto n) { launch(n, integral_constant<int, 14>{}); };
  if (units == 6) return fourteen(integral_constant<int, 6>{});
  if (units == 7) return fourteen(integral_constant<int, 7>{});
  fourteen(integral_constant<int, 9>{});
}

}  // namespace gm::GM_BACKEND_NS
