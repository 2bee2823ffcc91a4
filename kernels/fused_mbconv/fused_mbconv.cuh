// A whole Fused-MBConv block in bf16 on tensor cores: expand, activate and project without storing what lies
// between. Shapes and formulas: fused_mbconv.h; how the work is cut: fused_mbconv_tiles.h.
//
// The idea: the expanded tensor is the widest of the block, four times its input in EfficientNetV2-S, and all
// that is done with it is one product a pixel. The sums of the first product, activated and rounded, already
// lie in the registers as the second one wants its operand: the columns of sums of mma.m16n8k16 are the depth
// of its first factor. So a warp turns its 32 pixels x 8 kWide expanded channels into a part of its 32 x 8
// kNarrow sums without shared memory.
//
// A block holds the window of x under its run of pixels, 16-byte units [row][column][channel], zero outside
// the image. Each chunk of expanded channels meets the window once for each tap of the filter, as a product
// of depth C whose rows ldmatrix collects at the pixels' places. Weights of a tap go by in a ring of three
// stages (cp.async), those of the projection once a chunk. x is read about once, y written once.
//
// Turns of shared memory for C = 48 or 64: 6 for 16 products, of 4 cycles each where the products take 32 of
// a multiprocessor of sm_80. Registers: 64 sums of either kind.
#pragma once
#include "kernels/common/act_any.cuh"
#include "kernels/common/async_copy.cuh"
#include "kernels/common/context.h"
#include "kernels/common/mma.cuh"
#include "kernels/fused_mbconv/fused_mbconv_tiles.h"

namespace gm::GM_BACKEND_NS {

/// What is compiled in: the numbers of FusedMbconvTiles that loops and places in shared memory depend on.
template <int kSteps, int kWide>
struct FusedSizes {
  static constexpr int kUnits = 2 * kSteps, kPitch = fused_pitch(kSteps),
                       kStage = fused_stage_units(kSteps, kWide), kProjectPitch = fused_project_pitch(kWide),
                       kExpanded = 8 * kWide;
};

/// Starts the copies of the window whose first row and column are `top` and `left` of the image.
template <class Sizes>
__device__ __forceinline__ void fused_load_window(const FusedMbconvTiles& t, const bf16* image, int top,
                                                  int left, uint4* to) {
  constexpr int kUnits = Sizes::kUnits;
  const int across = t.columns * kUnits, threads = static_cast<int>(blockDim.x);
  int row = 0, along = static_cast<int>(threadIdx.x);
  while (row < t.rows) {
    for (; along < across; along += threads) {
      const int column = along / kUnits, unit = along % kUnits, iy = top + row, ix = left + column;
      const bool inside = iy >= 0 && iy < t.h && ix >= 0 && ix < t.w && 8 * unit < t.c;
      async_copy16(to + (row * t.columns + column) * Sizes::kPitch + unit,
                   image + (inside ? int64_t{iy * t.w + ix} * t.c + 8 * unit : 0), inside);
    }
    along -= across;
    ++row;
  }
}

/// Starts the copies of the weights of a tap, [expanded channel][c]. Once a tap and for few products, so a
/// thread keeps to one unit of a row: what is left of its loop are three additions a copy.
template <class Sizes>
__device__ __forceinline__ void fused_load_tap(const FusedMbconvTiles& t, const bf16* w, int chunk, int tap,
                                               uint4* to) {
  constexpr int kUnits = Sizes::kUnits;
  const int taps = t.kernel * t.kernel, thread = static_cast<int>(threadIdx.x), unit = thread % kUnits,
            step = static_cast<int>(blockDim.x) / kUnits, left = t.e - chunk * Sizes::kExpanded;
  int row = thread / kUnits;
  if (row >= step) return;  // not all threads make up whole rows
  const bf16* from = w + ((chunk * Sizes::kExpanded + row) * taps + tap) * t.c + 8 * unit;
  to += row * Sizes::kPitch + unit;
  for (; row < Sizes::kExpanded; row += step, from += step * taps * t.c, to += step * Sizes::kPitch) {
    const bool inside = row < left && 8 * unit < t.c;
    async_copy16(to, inside ? from : w, inside);
  }
}

/// Starts the copies of the projection's weights for a chunk: [k][expanded channel], rows dealt in fours.
template <int kWide, int kNarrow>
__device__ __forceinline__ void fused_load_project(const FusedMbconvTiles& t, const bf16* w, int chunk,
                                                   uint4* to) {
  for (int i = static_cast<int>(threadIdx.x); i < 8 * kNarrow * kWide; i += static_cast<int>(blockDim.x)) {
    const int row = i / kWide, unit = i % kWide, k = column_in_fours(row), e = chunk * 8 * kWide + 8 * unit;
    const bool inside = k < t.k && e < t.e;
    async_copy16(to + row * fused_project_pitch(kWide) + unit, w + (inside ? k * t.e + e : 0), inside);
  }
}

/// sum (32 x 8 kN) += upper and lower 16 rows of a factor (16 deep) times rows of weights in shared memory,
/// kPitch units apart; weights: where the lane finds its row of four matrices.
template <int kPitch, int kN>
__device__ __forceinline__ void fused_products(const Bf16Pair (&upper)[4], const Bf16Pair (&lower)[4],
                                               const uint4* weights, float (&sum)[2][kN][4]) {
#pragma unroll
  for (int n = 0; n < kN; n += 2) {
    Bf16Pair b[4];
    load_matrices<false>(weights + 8 * n * kPitch, b);
    const Bf16Pair even[2] = {b[0], b[1]}, odd[2] = {b[2], b[3]};
    mma_bf16(sum[0][n], upper, even);
    mma_bf16(sum[0][n + 1], upper, odd);
    mma_bf16(sum[1][n], lower, even);
    mma_bf16(sum[1][n + 1], lower, odd);
  }
}

// Grid: tiles of all images, those of an image side by side; block: t.warps() warps of 32 pixels.
template <int kSteps, int kWide, int kNarrow>
__global__ __launch_bounds__(32 * kFusedWarps,
                             3) void fused_mbconv_kernel(FusedMbconvTiles t, Act act, bool residual,
                                                         const bf16* x, const bf16* w_expand,
                                                         const float* b_expand, const bf16* w_project,
                                                         const float* b_project, bf16* y) {
  await_launch_before();
  GM_DYN_SHARED(uint4, window);
  using Sizes = FusedSizes<kSteps, kWide>;
  constexpr int kPitch = Sizes::kPitch, kProjectPitch = Sizes::kProjectPitch;
  uint4* const ring = window + t.rows * t.columns * kPitch;
  uint4* const project = ring + kFusedStages * Sizes::kStage;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32,
            group = lane / 4, quad = lane % 4;
  const int image = static_cast<int>(blockIdx.x) / t.tiles,
            first = (static_cast<int>(blockIdx.x) - image * t.tiles) * t.pixels,
            end = min(first + t.pixels, t.oh * t.ow), first_row = first / t.ow, taps = t.kernel * t.kernel,
            stages = t.chunks * taps;

  int to_load = 0, chunk_to_load = 0, tap_to_load = 0, slot_to_load = 0;
  auto load_next = [&] {
    if (to_load < stages) {
      fused_load_tap<Sizes>(t, w_expand, chunk_to_load, tap_to_load, ring + slot_to_load * Sizes::kStage);
      if (++tap_to_load == taps) tap_to_load = 0, ++chunk_to_load;
      slot_to_load = slot_to_load == kFusedStages - 1 ? 0 : slot_to_load + 1;
      ++to_load;
    }
  };
  fused_load_window<Sizes>(t, x + int64_t{image} * t.h * t.w * t.c, first_row * t.stride - t.pad_top,
                           -t.pad_left, window);
#pragma unroll
  for (int i = 0; i < kFusedStages - 1; ++i) {
    load_next();
    async_commit();
  }

  // Where ldmatrix finds the lane's row: the pixel lane % 16 of 16 in the window, at the first tap, and a row
  // of weights. Pixels past the last one repeat it.
  auto in_window = [&](int pixel) {
    const int at = min(pixel, end - 1), oy = at / t.ow, ox = at - oy * t.ow;
    return ((oy - first_row) * t.columns + ox) * t.stride * kPitch;
  };
  int rows[2];
#pragma unroll
  for (int m = 0; m < 2; ++m) rows[m] = in_window(first + 32 * warp + 16 * m + lane % 16) + lane / 16;
  const int weight_row = lane / 16 * 8 + lane % 8, weight_unit = lane / 8 % 2;

  float sum[2][kNarrow][4] = {};
  int slot = 0;
  for (int chunk = 0; chunk < t.chunks; ++chunk) {
    float wide[2][kWide][4];
#pragma unroll
    for (int n = 0; n < kWide; ++n) {
      const int e = (chunk * kWide + n) * 8;
      float shift[2] = {};
      if (e < t.e) load_lanes<float, 2>(b_expand + e + 2 * quad, shift);
#pragma unroll
      for (int m = 0; m < 2; ++m)
#pragma unroll
        for (int i = 0; i < 4; ++i) wide[m][n][i] = shift[i % 2];
    }
    int tap = 0;
    for (int r = 0; r < t.kernel; ++r)
      for (int s = 0; s < t.kernel; ++s, ++tap) {
        async_wait_but<kFusedStages - 2>();
        __syncthreads();  // the stage is there, and nobody reads the one before any more
        load_next();
        // All have projected the chunk before; the barriers of the next taps order the copy before its use.
        if (tap == 0) fused_load_project<kWide, kNarrow>(t, w_project, chunk, project);
        async_commit();
        const uint4* const place = window + (r * t.columns + s) * kPitch;
        const uint4* const weights = ring + slot * Sizes::kStage + weight_row * kPitch + weight_unit;
        slot = slot == kFusedStages - 1 ? 0 : slot + 1;
#pragma unroll
        for (int k = 0; k < kSteps; ++k) {
          Bf16Pair a[2][4];
#pragma unroll
          for (int m = 0; m < 2; ++m) load_matrices<false>(place + rows[m] + 2 * k, a[m]);
          fused_products<kPitch>(a[0], a[1], weights + 2 * k, wide);
        }
      }

    // Columns 2t, 2t + 1 of the sums of two products are depth 2t, 2t + 1 and 2t + 8, 2t + 9 of a factor.
    Bf16Pair activated[2][kWide / 2][4];
    act_choose(act, [&](auto chosen) {
      constexpr Act kAct = decltype(chosen)::value;
#pragma unroll
      for (int m = 0; m < 2; ++m)
#pragma unroll
        for (int n = 0; n < kWide; ++n)
#pragma unroll
          for (int below = 0; below < 2; ++below)
            activated[m][n / 2][n % 2 * 2 + below] =
                pack_bf16(act_value<kAct, bf16>(wide[m][n][2 * below]),
                          act_value<kAct, bf16>(wide[m][n][2 * below + 1]));
    });
    const uint4* const weights = project + weight_row * kProjectPitch + weight_unit;
#pragma unroll
    for (int k = 0; k < kWide / 2; ++k)
      fused_products<kProjectPitch>(activated[0][k], activated[1][k], weights + 2 * k, sum);
  }

  // A lane ends with four neighbouring channels of each pair of products, 8 bytes. The residual is still in
  // the window, where the padding ends.
#pragma unroll
  for (int n = 0; n < kNarrow / 2; ++n) {
    const int channel = 16 * n + 4 * quad;
    if (channel >= t.k) break;
    float shift[4];
    load_lanes<float, 4>(b_project + channel, shift);
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int below = 0; below < 2; ++below) {
        const int pixel = first + 32 * warp + 16 * m + 8 * below + group;
        if (pixel >= end) continue;
        float v[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) v[j] = sum[m][2 * n + j / 2][2 * below + j % 2] + shift[j];
        if (residual) {
          const uint4* const at = window + in_window(pixel) + (t.pad_top * t.columns + t.pad_left) * kPitch;
          float more[4];
          load_lanes<bf16, 4>(reinterpret_cast<const bf16*>(at) + channel, more);
#pragma unroll
          for (int j = 0; j < 4; ++j) v[j] += more[j];
        }
        store_lanes<bf16, 4>(y + (int64_t{image} * t.oh * t.ow + pixel) * t.k + channel, v);
      }
  }
}

inline void launch_fused_mbconv(const FusedMbconvTiles& t, Act act, bool residual, const bf16* x,
                                const bf16* w_expand, const float* b_expand, const bf16* w_project,
                                const float* b_project, bf16* y, const Context& ctx) {
  using std::integral_constant;
  auto launch = [&](auto steps, auto wide, auto narrow) {
    GM_LAUNCH((fused_mbconv_kernel<steps.value, wide.value, narrow.value>), unsigned(t.blocks()),
              unsigned(32 * t.warps()), t.shared_bytes(), ctx.stream, t, act, residual, x, w_expand, b_expand,
              w_project, b_project, y);
  };
  auto with = [&](auto steps) {
    if (t.wide == 6) return launch(steps, integral_constant<int, 6>{}, integral_constant<int, 6>{});
    if (t.narrow == 6) return launch(steps, integral_constant<int, 8>{}, integral_constant<int, 6>{});
    launch(steps, integral_constant<int, 8>{}, integral_constant<int, 8>{});
  };
  if (t.steps == 1) return with(integral_constant<int, 1>{});
  if (t.steps == 2) return with(integral_constant<int, 2>{});
  if (t.steps == 3) return with(integral_constant<int, 3>{});
  with(integral_constant<int, 4>{});
}

}  // namespace gm::GM_BACKEND_NS
