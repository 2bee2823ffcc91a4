// Gradient of the weights of our convolution for few channels: dw[k][tap][c] = sum over pixels of
// dy[pixel][k] * x[pixel + tap][c].
//
// The idea: pixels are the depth of the product, so both operands have it as their slow dimension, and
// ldmatrix turns them on the way from shared memory. A row of the product is a channel of a tap, in chunks of
// 8 as in conv2d_narrow.cuh: a chunk of x at the 8 pixels of a matrix is the same tile read at another place,
// so x and dy are read once for all taps. A warp owns up to four pairs of chunks (16 rows each) x N tiles of
// 8 filters and keeps their sums in registers over all tiles of its block; no sum crosses warps. Two steps of
// 16 pixels are 8 + N reads for 8 N products.
//
// Shared memory: two tiles, each x with its halo as in conv2d_narrow.cuh, then dy [pixel][filter] in the
// order of the depth, zero outside of the image; the next tile is copied while one is multiplied.
//
// Counted in sm_80 code, M = 4, N = 3: 145 instructions for four steps, of which 48 HMMA, 22 LDSM. 3x3, 24 ->
// 24 channels at 112 px, batch 64: 4.4 million turns of the banks for the products.
//
// Each block leaves one partial sum, sum_partials_kernel adds them in order: there are as many as the card
// holds blocks at once.
#pragma once
#include "kernels/common/partials.cuh"
#include "kernels/conv2d/conv2d_narrow.cuh"

namespace gm::GM_BACKEND_NS {

/// Starts the copy of a tile's dy: step s of the depth is two rows of eight pixels, as a product's in
/// conv2d_narrow.cuh.
template <int N>
__device__ __forceinline__ void narrow_load_gradient(const NarrowGradient& p, const bf16* dy, int tile,
                                                     int first, uint4* to) {
  const NarrowTile t = narrow_tile(p.conv, tile);
  const bf16* const image = dy + int64_t{t.image} * p.conv.oh * p.conv.ow * p.conv.k;
  for (int i = static_cast<int>(threadIdx.x); i < p.pixels() * N; i += kNarrowThreads) {
    const int pixel = i / N, filter = first + (i - pixel * N) * 8, step = pixel / 16;
    const int y = t.y + p.conv.row_of(step) + pixel / 8 % 2, x = t.x + p.conv.column_of(step) + pixel % 8;
    const bool inside = y < p.conv.oh && x < p.conv.ow && filter < p.conv.k;
    const int at = (y * p.conv.ow + x) * p.conv.k + filter;
    async_copy16(to + pixel * p.filter_pitch() + i - pixel * N, inside ? image + at : dy, inside);
  }
}

// M pairs of chunks a warp, N tiles of 8 filters; grid: (walkers, slices of the filters, slices of the
// pairs). partials: (walkers, K, taps).
template <int M, int N>
__global__ void __launch_bounds__(kNarrowThreads, kGradientBlocks)
    conv2d_narrow_weights_kernel(NarrowGradient p, const bf16* in, const bf16* dy, float* partials) {
  await_launch_before();
  GM_DYN_SHARED(uint4, shared);
  const NarrowConv& c = p.conv;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32,
            group = lane / 4, quad = lane % 4, first = static_cast<int>(blockIdx.y) * N * 8;
  const int first_pair = static_cast<int>(blockIdx.z) * p.pairs + warp,
            last_pair = min(static_cast<int>(blockIdx.z + 1) * p.pairs, c.depth);
  auto load = [&](int tile, int buffer) {
    uint4* const to = shared + buffer * p.tile_units();
    narrow_load(c, in, tile, to);
    narrow_load_gradient<N>(p, dy, tile, first, to + c.tile_units());
  };
  int tile = static_cast<int>(blockIdx.x), buffer = 0;
  load(tile, 0);

  // Matrices of x: both chunks of a pair at the step's first eight pixels, then at its second eight. Matrices
  // of dy: tile q % N of step q / N, first and second eight pixels, for q = 0, 1, then 2, 3, ...
  int chunk[M], filter[N];
#pragma unroll
  for (int i = 0; i < M; ++i)
    chunk[i] = narrow_place(c, 2 * (first_pair + i * kNarrowWarps) + lane / 8 % 2) +
               lane / 16 * c.stride * c.row_units + lane % 8 * c.pitch;
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const int q = 2 * j + lane / 16;
    filter[j] = (q / N * 16 + lane % 16) * p.filter_pitch() + q % N;
  }

  float sum[M][N][4] = {};
  for (; tile < c.tiles; tile += static_cast<int>(gridDim.x), buffer ^= 1) {
    const int next = tile + static_cast<int>(gridDim.x);
    async_wait();
    __syncthreads();  // the tile is there, and nobody reads the other one any more
    if (next < c.tiles) load(next, buffer ^ 1);
    const uint4* const x = shared + buffer * p.tile_units();
    const uint4* const dy_tile = x + c.tile_units();
    for (int step = 0; step < p.pixels() / 16; step += 2) {
      Bf16Pair b[2 * N][2];
#pragma unroll
      for (int j = 0; j < N; ++j) {
        Bf16Pair m[4];
        load_matrices<true>(dy_tile + step * 16 * p.filter_pitch() + filter[j], m);
        b[2 * j][0] = m[0], b[2 * j][1] = m[1], b[2 * j + 1][0] = m[2], b[2 * j + 1][1] = m[3];
      }
#pragma unroll
      for (int two = 0; two < 2; ++two) {
        const int s = step + two;
        const uint4* const at = x + c.row_of(s) * c.stride * c.row_units + c.column_of(s) * c.pitch;
#pragma unroll
        for (int i = 0; i < M; ++i) {  // also past the last pair: a branch would cost more
          Bf16Pair a[4];
          load_matrices<true>(at + chunk[i], a);
#pragma unroll
          for (int n = 0; n < N; ++n) mma_bf16(sum[i][n], a, b[two * N + n]);
        }
      }
    }
  }

  const int taps = c.rows * c.columns * c.c;
  float* const to = partials + int64_t{blockIdx.x} * c.k * taps;
#pragma unroll
  for (int i = 0; i < M; ++i)
#pragma unroll
    for (int lower = 0; lower < 2; ++lower) {
      const int pair = first_pair + i * kNarrowWarps, at = 2 * pair + lower, tap = at / c.units,
                channel = (at - tap * c.units) * 8 + group;
      if (pair >= last_pair || at >= c.chunks || channel >= c.c) continue;
#pragma unroll
      for (int j = 0; j < N * 2; ++j) {
        const int f = first + j / 2 * 8 + 2 * quad + j % 2;
        if (f < c.k) to[f * taps + tap * c.c + channel] = sum[i][j / 2][2 * lower + j % 2];
      }
    }
}

/// partials: p.partial_bytes() of scratch.
inline void launch_narrow_weights(const NarrowGradient& p, const bf16* in, const bf16* dy, float* partials,
                                  float* dw, bool accumulate, const Context& ctx) {
  const NarrowConv& c = p.conv;
  auto launch = [&](auto m, auto n) {
    const auto kernel = conv2d_narrow_weights_kernel<m.value, n.value>;
    const int resident = resident_blocks(kernel, kNarrowThreads, p.shared_bytes()),
              walkers = p.walkers(std::min(resident, kGradientBlocks) * summing_multiprocessors(ctx));
    const dim3 grid(static_cast<unsigned>(walkers), static_cast<unsigned>(p.slices),
                    static_cast<unsigned>(p.row_slices));
    GM_LAUNCH(kernel, grid, kNarrowThreads, p.shared_bytes(), ctx.stream, p, in, dy, partials);
    launch_sum_partials(partials, int64_t{c.k} * c.rows * c.columns * c.c, walkers, dw, accumulate, ctx);
  };
  auto filters = [&](auto m) {
    if (p.n == 3) return launch(m, std::integral_constant<int, 3>{});
    launch(m, std::integral_constant<int, 4>{});
  };
  if (p.m == 2)
    filters(std::integral_constant<int, 2>{});
  else if (p.m == 3)
    filters(std::integral_constant<int, 3>{});
  else
    filters(std::integral_constant<int, 4>{});
}

}  // namespace gm::GM_BACKEND_NS
