// Forward pass of an expanding 1x1 convolution with batch norm and SiLU behind it, in bf16 on tensor cores:
//   yc[p][k] = sum over c of x[p][c] w[k][c], rounded;  a = silu(BN(yc))
//
// The idea: the wide tensors are the work, the products are little. Apart, yc is written, read for its
// statistics, read once more, and a is written: four passes. Here one kernel forms yc for the statistics
// alone and keeps nothing, and a second forms it again, stores it and what follows from it: two passes, and
// twice over the narrow x.
//
// A block walks over tiles of 64 pixels in shared memory; the next tile is copied (cp.async) while one is
// used, two buffers and one barrier a tile. A warp owns 32 of the K channels, whose weights stay in its
// registers, and takes 16 pixels at a time. The columns of its four products of 8 channels are dealt so that
// a lane holds eight neighbouring channels of a pixel, 16 bytes: product n has in column j the channel
//   8 (j / 2) + 2 n + j % 2        of the run
#pragma once
#include "kernels/batch_norm/bn_forward.cuh"
#include "kernels/common/async_copy.cuh"
#include "kernels/common/mma.cuh"
#include "kernels/conv_bn_act/expand.h"

namespace gm::GM_BACKEND_NS {

/// What a thread does in the walk: its lane's part of the products.
template <int kSteps>
struct ExpandLane {
  HalfPair weights[kSteps][4][2];
  int group, quad, channel;  // first of the lane's eight channels; channel >= k: past the last
  int row, beside;           // where the lane finds its row of four matrices

  __device__ __forceinline__ ExpandLane(const ExpandForward& p, const bf16* w, int column) {
    const int lane = static_cast<int>(threadIdx.x) % 32,
              run = (static_cast<int>(blockIdx.y) * p.columns + column) * 32;
    group = lane / 4, quad = lane % 4, channel = run + 8 * quad, row = lane % 16, beside = lane / 16;
#pragma unroll
    for (int s = 0; s < kSteps; ++s)
#pragma unroll
      for (int n = 0; n < 4; ++n)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int k = run + group / 2 * 8 + 2 * n + group % 2, depth = 16 * s + 8 * half + 2 * quad;
          weights[s][n][half] =
              k < p.k && depth < p.c ? *reinterpret_cast<const HalfPair*>(w + k * p.c + depth) : 0;
        }
  }
  /// yc of two pixels, `group` and `group` + 8 of the 16 in the tile, whose first is `first`.
  __device__ __forceinline__ void products(const uint4* first, int narrow, Vec<bf16, 8> (&yc)[2]) const {
    const int pitch = narrow | 1;
    float sum[4][4] = {};
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      HalfPair a[4];
      // Past the last unit of x the weights are zero.
      load_matrices<false>(first + row * pitch + min(2 * s + beside, narrow - 1), a);
#pragma unroll
      for (int n = 0; n < 4; ++n) mma_bf16(sum[n], a, weights[s][n]);
    }
#pragma unroll
    for (int below = 0; below < 2; ++below) {
      float v[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) v[i] = sum[i / 2][2 * below + i % 2];
      yc[below] = Vec<bf16, 8>::from_float(v);
    }
  }
};

/// Walks over the tiles of x of this block: use(pixel, yc) for each pixel of the lane's.
template <int kSteps, class Use>
__device__ __forceinline__ void expand_walk(const ExpandForward& p, const bf16* x, uint4* tiles,
                                            const ExpandLane<kSteps>& lane, int warp_row, Use use) {
  const int narrow = p.narrow_units(), pitch = p.narrow_pitch(), thread = static_cast<int>(threadIdx.x),
            threads = static_cast<int>(blockDim.x);
  const int inverse = (1 << 16) / narrow + 1;  // exact for the units of a tile
  auto load = [&](int tile, int buffer) {
    const int first = tile * kForwardPixels, left = min(p.pixels - first, kForwardPixels) * narrow;
    for (int e = thread; e < p.tile_units(); e += threads) {
      const int pixel = e * inverse >> 16;
      async_copy16(tiles + buffer * p.held_units() + e + pixel * (pitch - narrow),
                   x + (e < left ? int64_t{first} * p.c + e * 8 : 0), e < left);
    }
  };
  int tile = static_cast<int>(blockIdx.x), buffer = 0;
  load(tile, buffer);
  for (; tile < p.tiles; tile += static_cast<int>(gridDim.x), buffer ^= 1) {
    async_wait();
    __syncthreads();  // the tile is there, and nobody reads the other one any more
    const int next = tile + static_cast<int>(gridDim.x);
    if (next < p.tiles) load(next, buffer ^ 1);
    const uint4* const held = tiles + buffer * p.held_units();
    for (int chunk = 16 * warp_row; chunk < kForwardPixels; chunk += 16 * p.rows) {
      Vec<bf16, 8> yc[2];
      lane.products(held + chunk * pitch, narrow, yc);
#pragma unroll
      for (int below = 0; below < 2; ++below) {
        const int pixel = tile * kForwardPixels + chunk + 8 * below + lane.group;
        if (pixel < p.pixels) use(pixel, yc[below]);
      }
    }
  }
}

// Statistics of yc about a pivot, as bn_statistics_kernel: the mean of eight pixels spread over the tensor.
// Grid: walkers x slices; block: columns x rows warps.
template <int kSteps>
__global__ __launch_bounds__(32 * kForwardWarps,
                             2) void conv_bn_expand_statistics_kernel(ExpandForward p, const bf16* x,
                                                                      const bf16* w, float* partial,
                                                                      BnFinish finish) {
  await_launch_before();
  GM_DYN_SHARED(uint4, shared);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, warp_row = warp / p.columns,
            column = warp - warp_row * p.columns, narrow = p.narrow_units(), pitch = p.narrow_pitch();
  const ExpandLane<kSteps> lane(p, w, column);

  // The pivot: the eight pixels twice, as 16.
  uint4* const probes = shared + p.held_units();  // where the walk's second tile will be
  for (int e = thread; e < 16 * narrow; e += static_cast<int>(blockDim.x)) {
    const int row = e / narrow, unit = e - row * narrow;
    const auto pixel = static_cast<int64_t>(uint64_t(p.pixels) * unsigned(row % 8) / 8);
    async_copy16(probes + row * pitch + unit, x + pixel * p.c + unit * 8, true);
  }
  async_wait();
  __syncthreads();
  Vec<bf16, 8> probe[2];
  lane.products(probes, narrow, probe);
  float pivot[8], s[8] = {}, q[8] = {};
  probe[0].to_float(pivot);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
#pragma unroll
    for (int step = 4; step < 32; step *= 2) pivot[i] += __shfl_xor_sync(0xffffffffu, pivot[i], step);
    pivot[i] *= 0.125f;
  }
  if (blockIdx.x == 0 && warp_row == 0 && lane.group == 0 && lane.channel < p.k) {
#pragma unroll
    for (int i = 0; i < 8; ++i) finish.v.pivot[lane.channel + i] = pivot[i];
  }

  expand_walk(p, x, shared, lane, warp_row, [&](int, const Vec<bf16, 8>& yc) {
    float v[8];
    yc.to_float(v);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float d = v[i] - pivot[i];
      s[i] += d;
      q[i] += d * d;
    }
  });

  // The eight groups of a warp, then the rows of warps; [row][quantity][channel of the slice].
  float* const sums = reinterpret_cast<float*>(shared + 2 * p.held_units());
  const int width = p.columns * 32, first = static_cast<int>(blockIdx.y) * width;
#pragma unroll
  for (int i = 0; i < 8; ++i)
#pragma unroll
    for (int step = 4; step < 32; step *= 2) {
      s[i] += __shfl_xor_sync(0xffffffffu, s[i], step);
      q[i] += __shfl_xor_sync(0xffffffffu, q[i], step);
    }
  if (lane.group == 0) {
    float* const to = sums + warp_row * 2 * width + lane.channel - first;
#pragma unroll
    for (int i = 0; i < 8; ++i) to[i] = s[i], to[width + i] = q[i];
  }
  __syncthreads();
  for (int i = thread; i < 2 * width; i += static_cast<int>(blockDim.x)) {
    const int quantity = i / width, k = first + i - quantity * width;
    float sum = sums[i];
    for (int r = 1; r < p.rows; ++r) sum += sums[r * 2 * width + i];
    if (k < p.k) partial[(int64_t{blockIdx.x} * 2 + quantity) * p.k + k] = sum;
  }
  if (last_block_done(&bn_tickets[blockIdx.y], gridDim.x))
    bn_finish_slice<4>(first, min(width, p.k - first), p.k, partial, finish);
}

// yc and a; yc null: not wanted. The same grid and block.
template <int kSteps>
__global__ __launch_bounds__(32 * kForwardWarps, 2) void conv_bn_expand_kernel(ExpandForward p, const bf16* x,
                                                                               const bf16* w, BnVectors v,
                                                                               bf16* yc, bf16* a) {
  await_launch_before();
  GM_DYN_SHARED(uint4, shared);
  const int warp = static_cast<int>(threadIdx.x) / 32, warp_row = warp / p.columns;
  const ExpandLane<kSteps> lane(p, w, warp - warp_row * p.columns);
  const BnAffine<bf16, 8> normalise(v, min(lane.channel, p.k - 8));
  expand_walk(p, x, shared, lane, warp_row, [&](int pixel, const Vec<bf16, 8>& product) {
    if (lane.channel >= p.k) return;
    const int64_t at = int64_t{pixel} * p.k + lane.channel;
    if (yc) product.store(yc + at);
    float z[8];
    product.to_float(z);
#pragma unroll
    for (int i = 0; i < 8; ++i) z[i] = act_value<Act::silu, bf16>(normalise(i, z[i]));
    store_lanes<bf16, 8>(a + at, z);
  });
}

/// c: a forward call of conv_bn_act. memory: batch norm's scratch.
inline void launch_expand_forward(const ExpandForward& p, const OpCall& c, float* memory) {
  const BnVectors v(memory, p.k);
  const BnFinish finish = bn_finish_of(c, 2, 1, v, p.pixels);
  const bf16 *const x = c.in[0].as<bf16>(), *const w = c.in[1].as<bf16>();
  const dim3 grid(static_cast<unsigned>(p.walkers), static_cast<unsigned>(p.slices));
  const unsigned threads = static_cast<unsigned>(32 * p.columns * p.rows);
  auto launch = [&](auto steps) {
    if (BatchNormAttrs(c.attrs).training)
      GM_LAUNCH((conv_bn_expand_statistics_kernel<steps.value>), grid, threads, p.shared_bytes(),
                c.ctx.stream, p, x, w, memory + int64_t{8} * p.k, finish);
    else
      GM_LAUNCH(bn_running_kernel, bn_vector_blocks(p.k), 128, 0, c.ctx.stream, finish, p.k, BnDraw());
    GM_LAUNCH((conv_bn_expand_kernel<steps.value>), grid, threads, p.shared_bytes(), c.ctx.stream, p, x, w, v,
              c.saved[0].as<bf16>(), c.out[0].as<bf16>());
  };
  using std::integral_constant;
  if (p.steps == 1) return launch(integral_constant<int, 1>{});
  if (p.steps == 2) return launch(integral_constant<int, 2>{});
  if (p.steps == 3) return launch(integral_constant<int, 3>{});
  if (p.steps == 4) return launch(integral_constant<int, 4>{});
  launch(integral_constant<int, 5>{});
}

}  // namespace gm::GM_BACKEND_NS
