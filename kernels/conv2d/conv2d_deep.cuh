// 1x1 convolutions of many channels in bf16 on tensor cores, with squeeze-and-excitation's gate on the way:
//   y[p][k] = act(sum over c of bf16(x[p][c] gate[image of p][c]) w[k][c] + bias[k]) + residual[p][k]
//
// The idea: a projection reads six times what it writes, and the gate before it is one factor a value read.
// In a pass of its own it reads and writes the widest tensor once more.
//
// A block forms a tile of 128 pixels x up to 160 of the K channels. C goes by in stages of 32 channels, three
// of them in shared memory in a ring: while one is multiplied, two are under way (cp.async). A stage is x
// [pixel][c], then w [k][c], then the factors [image][c]. A warp owns 32 pixels x 8 kN channels and scales x
// in the fragments that it has from ldmatrix, 5 instructions for two values, which feed 2 kN products each.
//
// Rows of w are dealt in fours (mma.cuh), so that a lane ends with 8 bytes of a pair of tiles.
#pragma once
#include "kernels/common/act_any.cuh"
#include "kernels/common/async_copy.cuh"
#include "kernels/common/mma.cuh"
#include "kernels/conv2d/conv2d_after.cuh"
#include "kernels/conv2d/conv2d_deep.h"

namespace gm::GM_BACKEND_NS {

/// Where a block's tile begins.
struct DeepPlace {
  int pixel, channel, image, images;  // images: those of the tensor from there on
  int filter;                         // of the first row of w that the thread copies
};

/// Starts the copies of a stage: zero past the last pixel and past the last channel. A thread has a unit of
/// rows that are some multiple of 16 apart, and so are the filters that column_in_fours makes of them.
__device__ __forceinline__ void deep_load(const DeepTiles& p, const bf16* x, const float* gate, const bf16* w,
                                          const DeepPlace& first, int stage, uint4* to) {
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x),
            apart = threads / 4, c = stage * kDeepChannels + thread % 4 * 8;
  const bool any = c < p.c;
  const bf16* from = x + int64_t{first.pixel + thread / 4} * p.c + c;  // maybe past the last
  uint4* place = to + thread / 4 * kDeepPitch + thread % 4;
  for (int row = thread / 4; row < kDeepPixels; row += apart) {
    const bool inside = any && first.pixel + row < p.pixels;
    async_copy16(place, inside ? from : x, inside);
    from += apart * p.c, place += apart * kDeepPitch;
  }
  from = w + int64_t{first.filter} * p.c + c;
  place = to + (kDeepPixels + thread / 4) * kDeepPitch + thread % 4;
  for (int row = 0; row < p.filters() - thread / 4; row += apart) {
    const bool inside = any && first.filter + row < p.k;
    async_copy16(place, inside ? from : w, inside);
    from += apart * p.c, place += apart * kDeepPitch;
  }
  to += (kDeepPixels + p.filters()) * kDeepPitch;
  for (int e = thread; e < p.images * 8; e += threads) {
    const int image = first.image + min(e / 8, first.images - 1), channel = stage * kDeepChannels + e % 8 * 4;
    const bool inside = channel < p.c;
    async_copy16(to + e / 8 * (kDeepGatePitch / 4) + e % 8,
                 gate + (inside ? int64_t{image} * p.c + channel : 0), inside);
  }
}

// Grid: slices x tiles, the slices of a tile side by side, so that one of them brings x to L2. gate: null
// unless kScaled; bias, residual: may be null.
template <int kN, bool kScaled>
__global__ __launch_bounds__(2 * kDeepPixels, 2) void conv2d_deep_kernel(DeepTiles p, const bf16* x,
                                                                         const float* gate, const bf16* w,
                                                                         const float* bias, Act act,
                                                                         const bf16* residual, bf16* y) {
  await_launch_before();
  GM_DYN_SHARED(uint4, shared);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32,
            group = lane / 4, quad = lane % 4, column = warp % p.columns, rows = warp / p.columns * 32;
  const int tile = static_cast<int>(blockIdx.x) / p.slices, image = tile * kDeepPixels / p.image_pixels;
  const int begin = (static_cast<int>(blockIdx.x) - tile * p.slices) * p.filters();
  const DeepPlace first{tile * kDeepPixels, begin, image, p.pixels / p.image_pixels - image,
                        begin + column_in_fours(static_cast<int>(threadIdx.x) / 4)};
  auto load = [&](int stage) {
    if (stage < p.stages)
      deep_load(p, x, gate, w, first, stage, shared + stage % kDeepStages * p.stage_units());
    async_commit();
  };
#pragma unroll
  for (int stage = 0; stage < kDeepStages - 1; ++stage) load(stage);

  int factors[2][2];  // where those of the lane's pixels are: rows group and group + 8 of each 16
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int below = 0; below < 2; ++below) {
      const int pixel = min(first.pixel + rows + 16 * m + 8 * below + group, p.pixels - 1);
      factors[m][below] = (pixel / p.image_pixels - image) * kDeepGatePitch + 2 * quad;
    }
  const int in_x = (rows + lane % 16) * kDeepPitch + lane / 16,
            in_w = (kDeepPixels + column * 8 * kN + lane / 16 * 8 + lane % 8) * kDeepPitch + lane / 8 % 2;

  float sum[2][kN][4] = {};
  for (int stage = 0; stage < p.stages; ++stage) {
    async_wait_but<kDeepStages - 2>();
    __syncthreads();  // the stage is there, and nobody reads the one before any more
    load(stage + kDeepStages - 1);
    const uint4* const held = shared + stage % kDeepStages * p.stage_units();
    const float* const gates =
        reinterpret_cast<const float*>(held + (kDeepPixels + p.filters()) * kDeepPitch);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (stage * kDeepChannels + 16 * half >= p.c) break;  // the same for all threads
      Bf16Pair a[2][4];
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        load_matrices<false>(held + in_x + 16 * m * kDeepPitch + 2 * half, a[m]);
        if constexpr (kScaled) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            float f[2];
            load_lanes<float, 2>(gates + factors[m][i % 2] + 16 * half + i / 2 * 8, f);
            a[m][i] = pack_bf16(low_bf16(a[m][i]) * f[0], high_bf16(a[m][i]) * f[1]);
          }
        }
      }
#pragma unroll
      for (int i = 0; i < kN / 2; ++i) {
        Bf16Pair b[4];
        load_matrices<false>(held + in_w + 16 * i * kDeepPitch + 2 * half, b);
        const Bf16Pair even[2] = {b[0], b[1]}, odd[2] = {b[2], b[3]};
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          mma_bf16(sum[m][2 * i], a[m], even);
          mma_bf16(sum[m][2 * i + 1], a[m], odd);
        }
      }
    }
  }

  // 16 pixels at a time: what is held of the residual takes the registers of their sums once more.
  const int channel = first.channel + column * 8 * kN + 4 * quad;
#pragma unroll
  for (int m = 0; m < 2; ++m) {
    auto each = [&](auto use) {
#pragma unroll
      for (int below = 0; below < 2; ++below) {
        const int pixel = first.pixel + rows + 16 * m + 8 * below + group;
#pragma unroll
        for (int i = 0; i < kN / 2; ++i)
          if (pixel < p.pixels && channel + 16 * i < p.k)
            use(below, i, int64_t{pixel} * p.k + channel + 16 * i);
      }
    };
    Vec<bf16, 4> held[2][kN / 2];
    if (residual)
      each([&](int below, int i, int64_t at) { held[below][i] = Vec<bf16, 4>::load(residual + at); });
#pragma unroll
    for (int i = 0; i < kN / 2; ++i) {
      float shift[4] = {};
      if (bias && channel + 16 * i < p.k) load_lanes<float, 4>(bias + channel + 16 * i, shift);
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        float& v = sum[m][2 * i + e / 2 % 2][e / 4 * 2 + e % 2];
        v = act_value_any<bf16>(act, v + shift[e % 4]);
      }
    }
    each([&](int below, int i, int64_t at) {
      float v[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) v[j] = sum[m][2 * i + j / 2][2 * below + j % 2];
      if (residual) add_held(held[below][i], v);
      store_lanes<bf16, 4>(y + at, v);
    });
  }
}

/// gate: null where p was cut without factors.
inline void launch_deep(const DeepTiles& p, const Bf16Conv& t, const float* gate, const Context& ctx) {
  auto launch = [&](auto n, auto scaled) {
    GM_LAUNCH((conv2d_deep_kernel<n.value, scaled.value>), unsigned(p.tiles * p.slices),
              unsigned(p.threads()), p.shared_bytes(), ctx.stream, p, t.x, gate, t.w, t.bias, t.act,
              t.residual, t.y);
  };
  auto width = [&](auto scaled) {
    using std::integral_constant;
    if (p.n == 4) return launch(integral_constant<int, 4>{}, scaled);
    if (p.n == 6) return launch(integral_constant<int, 6>{}, scaled);
    if (p.n == 8) return launch(integral_constant<int, 8>{}, scaled);
    launch(integral_constant<int, 10>{}, scaled);
  };
  if (p.images) return width(std::true_type{});
  width(std::false_type{});
}

}  // namespace gm::GM_BACKEND_NS
