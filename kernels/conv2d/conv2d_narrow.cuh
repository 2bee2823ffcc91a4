// Our convolution for few channels in bf16, forward and gradient of the data, on tensor cores.
//
// The idea: with 24 channels the bytes are the work, so x is read once, into a tile of shared memory with its
// halo, and every product is formed from there. A block of four warps keeps its slice of the filters in
// shared memory and walks over tiles; the next tile is copied (cp.async) while one is multiplied.
//
// Depth: a patch is rows x columns x C values, cut into chunks of 8 channels of one tap, 16 bytes; two chunks
// are a step of m16n8k16. So 9 taps x 24 channels are 27 chunks and 14 steps, of which one chunk is zero. Of
// an image of three channels a row of taps is a chunk or two: 5x5 are 10 chunks and 5 steps.
//   A: 16 pixels x 2 chunks by one ldmatrix, each lane at its pixel's place + its chunk's place in the tile
//   B: weights in the order of lanes, 8 bytes a lane, for N tiles of 8 filters
// A warp owns M tiles of 16 pixels, so that a step is M + N reads, 4 M + 2 N turns of all banks, for M N
// products.
//
// Shared memory: weights [step][N][lane], then where each chunk lies, then two tiles [row][pixel][C]. A pixel
// takes an odd number of units of 16 bytes, and with stride 2 the even columns of a row come before the odd
// ones: the eight pixels of a matrix are neighbours and their chunks lie in different banks.
//
// Counted in sm_80 code, M = 4, N = 3: 65 instructions for two steps, of which 24 HMMA, 8 LDSM, 8 LDS. 3x3,
// 24 -> 24 channels at 112 px, batch 64: 4.2 million turns of the banks, 32 thousand clocks on 132
// multiprocessors, beside 77 MB of memory. Measured: tests/gpu/results.
//
// Results: columns of the products are dealt to filters so that a lane holds four neighbouring ones of a pair
// of tiles and a quad writes 32 bytes.
#pragma once
#include "kernels/common/act_any.cuh"
#include "kernels/common/async_copy.cuh"
#include "kernels/common/card_limits.h"
#include "kernels/common/mma.cuh"
#include "kernels/conv2d/conv2d_after.cuh"
#include "kernels/conv2d/conv2d_narrow_image.cuh"

namespace gm::GM_BACKEND_NS {

struct NarrowTile {
  int image, y, x;  // first output
};
__device__ __forceinline__ NarrowTile narrow_tile(const NarrowConv& p, int tile) {
  const int row = tile / p.tiles_x, image = row / p.tiles_y;
  return {image, (row - image * p.tiles_y) * p.tile_h, (tile - row * p.tiles_x) * p.tile_w};
}

/// The place of a pixel in a tile.
__device__ __forceinline__ uint4* narrow_pixel(const NarrowConv& p, uint4* tile, int row, int pixel) {
  const int shift = p.stride - 1;
  return tile + row * p.row_units + ((pixel & shift) * p.half + (pixel >> shift)) * p.pitch;
}

/// Starts the copy of a tile's inputs, zero outside of the image. A row of pixels is one run of units.
__device__ __forceinline__ void narrow_load(const NarrowConv& p, const bf16* in, int tile, uint4* to) {
  const NarrowTile t = narrow_tile(p, tile);
  const int y0 = t.y * p.stride - p.top, x0 = t.x * p.stride - p.left;
  const bf16* const image = in + int64_t{t.image} * p.h * p.w * (p.thin_channels ? p.thin_channels : p.c);
  if (p.thin_channels && p.units == 2) return narrow_load_image<2, 2>(p, image, y0, x0, 0, to);  // a stem
  if (p.thin_channels) {
    for (int unit = 0; unit < p.units; ++unit) narrow_load_image<1, 1>(p, image, y0, x0, unit, to);
    return;
  }
  const int first = x0 * p.units, end = p.w * p.units, count = p.in_w * p.units, line = p.w * p.c,
            warp = static_cast<int>(threadIdx.x) / 32;
  const int inverse = 65536 / p.units + 1;  // exact for u < count
  for (int u = static_cast<int>(threadIdx.x) % 32; u < count; u += 32) {
    // A lane's place in a row is the same in all rows.
    const int at = first + u, pixel = u * inverse >> 16;
    const bool inside = at >= 0 && at < end;
    uint4* place = narrow_pixel(p, to, warp, pixel) + u - pixel * p.units;
    int from = (y0 + warp) * line + at * 8;
    for (int r = warp; r < p.in_h; r += kNarrowWarps) {
      const bool both = inside && static_cast<unsigned>(y0 + r) < static_cast<unsigned>(p.h);
      async_copy16(place, both ? image + from : in, both);
      place += kNarrowWarps * p.row_units, from += kNarrowWarps * line;
    }
  }
}

/// Filter, counted from the slice's first, of column `column` of the products with tile n of N.
template <int N>
__device__ __forceinline__ int narrow_filter(int n, int column) {
  if (n < N / 2 * 2) return n / 2 * 16 + column / 2 * 4 + n % 2 * 2 + column % 2;
  return n * 8 + column;
}

/// Where a chunk of a patch lies, counted from the patch's first. Past the last chunk, whose products do not
/// count, it is any place with values of the patch.
__device__ __forceinline__ int narrow_place(const NarrowConv& p, int chunk) {
  if (chunk >= p.chunks) return 0;
  const int tap = chunk / p.units, row = tap / p.columns, column = tap - row * p.columns,
            shift = p.stride - 1;
  return row * p.row_units + ((column & shift) * p.half + (column >> shift)) * p.pitch + chunk -
         tap * p.units;
}

/// The slice's weights in the order of lanes, and where the chunks of a patch lie. A warp takes a step of the
/// depth at a time: all of its loads, each from a place that exists, then what counts of them. Behind a
/// branch each pair would wait for the one before.
template <int N>
__device__ __forceinline__ void narrow_weights(const NarrowConv& p, const bf16* w, int first, uint2* to,
                                               int* places) {
  const int lane = static_cast<int>(threadIdx.x) % 32, inner = p.turned ? p.k : p.c,
            across = p.turned ? p.kernel : p.columns, from_filter = p.turned ? 1 : p.rows * across * p.c,
            from_channel = p.turned ? p.kernel * p.kernel * p.k : 1;
  for (int d = static_cast<int>(threadIdx.x) / 32; d < p.depth; d += kNarrowWarps) {
    bf16 raw[N][2][2];
    unsigned counts[N][2];
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const int chunk = 2 * d + k, tap = chunk / p.units, row = tap / p.columns;
      const int r = p.tap_row + row * p.tap_step, s = p.tap_column + (tap - row * p.columns) * p.tap_step;
      const int c = (chunk - tap * p.units) * 8 + lane % 4 * 2;
      const int from = (r * across + s) * inner + c * from_channel;
      const bool inside = chunk < p.chunks;
#pragma unroll
      for (int n = 0; n < N; ++n) {
        const int f = first + narrow_filter<N>(n, lane / 4);
        const bool low = inside && f < p.k && c < p.c, high = low && c + 1 < p.c;
        raw[n][k][0] = w[low ? from + f * from_filter : 0];
        raw[n][k][1] = w[high ? from + f * from_filter + from_channel : 0];
        counts[n][k] = (low ? 0xffffu : 0u) | (high ? 0xffff0000u : 0u);
      }
      if (lane == 0) places[chunk] = narrow_place(p, chunk);
    }
    auto word = [&](int n, int k) {
      return (raw[n][k][0].bits | static_cast<unsigned>(raw[n][k][1].bits) << 16) & counts[n][k];
    };
#pragma unroll
    for (int n = 0; n < N; ++n) to[(d * N + n) * 32 + lane] = make_uint2(word(n, 0), word(n, 1));
  }
}

// M tiles of 16 pixels a warp, N tiles of 8 filters a block; grid: (walkers, slices of the filters).
// add: null, a residual, or out itself.
template <int M, int N>
__global__ void __launch_bounds__(kNarrowThreads, M* N < 12 ? 4 : 3)
    conv2d_narrow_kernel(NarrowConv p, const bf16* in, const bf16* w, const float* bias, Act act,
                         const bf16* add, bf16* out) {
  await_launch_before();
  GM_DYN_SHARED(uint4, shared);
  uint2* const weights = reinterpret_cast<uint2*>(shared);
  int* const places = reinterpret_cast<int*>(shared + p.weight_units());
  uint4* const tiles = shared + p.weight_units() + p.place_units();
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32,
            group = lane / 4, quad = lane % 4, first = static_cast<int>(blockIdx.y) * N * 8;
  int tile = static_cast<int>(blockIdx.x), buffer = 0;
  if (tile < p.tiles) narrow_load(p, in, tile, tiles);
  narrow_weights<N>(p, w, first, weights, places);

  // 16 pixels of a product are two rows of eight. Of a step's matrices, each 8 pixels x 1 chunk, a lane names
  // a pixel of the upper row, the lower row, then the same for the second chunk.
  int place[M];
#pragma unroll
  for (int i = 0; i < M; ++i) {
    const int y = p.row_of(warp * M + i) + lane / 8 % 2, x = p.column_of(warp * M + i) + lane % 8;
    place[i] = y * p.stride * p.row_units + x * p.pitch;
  }

  for (; tile < p.tiles; tile += static_cast<int>(gridDim.x), buffer ^= 1) {
    const int next = tile + static_cast<int>(gridDim.x);
    async_wait();
    __syncthreads();  // the tile is there, and nobody reads the other one any more
    if (next < p.tiles) narrow_load(p, in, next, tiles + (buffer ^ 1) * p.tile_units());
    float sum[M][N][4];
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int f = first + narrow_filter<N>(n, 2 * quad + j);
        const float b = bias && f < p.k ? bias[f] : 0.f;
#pragma unroll
        for (int i = 0; i < M; ++i) sum[i][n][j] = sum[i][n][2 + j] = b;
      }
    const uint4* const x = tiles + buffer * p.tile_units();
    for (int d = 0; d < p.depth; ++d) {
      const uint4* const chunk = x + places[2 * d + lane / 16];
      Bf16Pair b[N][2];
#pragma unroll
      for (int n = 0; n < N; ++n) {
        const uint2 words = weights[(d * N + n) * 32 + lane];
        b[n][0] = words.x, b[n][1] = words.y;
      }
#pragma unroll
      for (int i = 0; i < M; ++i) {
        Bf16Pair a[4];
        load_matrices<false>(chunk + place[i], a);
#pragma unroll
        for (int n = 0; n < N; ++n) mma_bf16(sum[i][n], a, b[n]);
      }
    }
    // use(i, lower, n, lanes, at): `lanes` neighbouring filters of a pixel, at `at` of out.
    const NarrowTile t = narrow_tile(p, tile);
    const int64_t image = int64_t{t.image} * p.out_h * p.out_w * p.k;
    auto each = [&](auto use) {
#pragma unroll
      for (int i = 0; i < M; ++i)
#pragma unroll
        for (int lower = 0; lower < 2; ++lower) {
          const int y = t.y + p.row_of(warp * M + i) + lower, x = t.x + p.column_of(warp * M + i) + group;
          if (y >= p.oh || x >= p.ow) continue;
          const int pixel = (y * p.step + p.y0) * p.out_w + x * p.step + p.x0;
#pragma unroll
          for (int n = 0; n < N; n += 2) {
            const bool pair = n + 1 < N;
            const int f = first + n * 8 + quad * (pair ? 4 : 2);
            if (f >= p.k) continue;
            if (pair)
              use(i, lower, n, Lanes<4>{}, image + pixel * p.k + f);
            else
              use(i, lower, n, Lanes<2>{}, image + pixel * p.k + f);
          }
        }
    };
    Vec<bf16, 4> held[M][2][(N + 1) / 2];  // of add
    if (add)
      each([&](int i, int lower, int n, auto lanes, int64_t at) {
        Vec<bf16, 4>& to = held[i][lower][n / 2];
        if constexpr (decltype(lanes)::value == 4)
          to = Vec<bf16, 4>::load(add + at);
        else
          to.raw.x = Vec<bf16, 2>::load(add + at).raw.x;
      });
    if (act != Act::none)
      act_choose(act, [&](auto a) {
#pragma unroll
        for (int i = 0; i < M * N * 4; ++i) {
          float& v = sum[i / (N * 4)][i / 4 % N][i % 4];
          v = act_value<decltype(a)::value, bf16>(v);
        }
      });
    each([&](int i, int lower, int n, auto lanes, int64_t at) {
      constexpr int L = decltype(lanes)::value;
      float v[L];
#pragma unroll
      for (int j = 0; j < L; ++j) v[j] = sum[i][n + j / 2][2 * lower + j % 2];
      const Vec<bf16, 4>& more = held[i][lower][n / 2];
      if constexpr (L == 4) {
        if (add) add_held(more, v);
      } else {
        if (add) add_held(Vec<bf16, 2>{{more.raw.x}}, v);
      }
      store_lanes<bf16, L>(out + at, v);
    });
  }
}

inline void launch_narrow(const NarrowConv& p, const Bf16Conv& t, const Context& ctx) {
  if (p.tiles == 0) return;
  auto launch = [&](auto m, auto n) {
    const int card =
                  resident_blocks(conv2d_narrow_kernel<m.value, n.value>, kNarrowThreads, p.shared_bytes()) *
                  multiprocessors(ctx),
              walkers = std::min(p.tiles, std::max(card / p.slices, 1));
    GM_LAUNCH((conv2d_narrow_kernel<m.value, n.value>), dim3(unsigned(walkers), unsigned(p.slices)),
              kNarrowThreads, p.shared_bytes(), ctx.stream, p, t.x, t.w, t.bias, t.act, t.residual, t.y);
  };
  auto filters = [&](auto m) {
    if (p.n == 3) return launch(m, std::integral_constant<int, 3>{});
    if (p.n == 4) return launch(m, std::integral_constant<int, 4>{});
    if (p.n == 6) return launch(std::integral_constant<int, 2>{}, std::integral_constant<int, 6>{});
    launch(std::integral_constant<int, 2>{}, std::integral_constant<int, 8>{});
  };
  if (p.m == 4) return filters(std::integral_constant<int, 4>{});
  filters(std::integral_constant<int, 2>{});
}

}  // namespace gm::GM_BACKEND_NS
