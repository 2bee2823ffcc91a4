// Forward pass of an expanding 1x1 convolution with batch norm and SiLU behind it, in bf16 on tensor cores:
//   yc[p][k] = sum over c of x[p][c] w[k][c], rounded;  a = silu(BN(yc))
//
// The idea: the wide tensors are the work, the products are little. Apart, yc is written, read for its
// statistics, read once more, and a is written: four passes. Here one kernel forms yc for the statistics
// alone and keeps nothing, and a second forms it again, stores it and what follows from it: two passes, and
// twice over the narrow x.
//
// The walk over tiles and the products are those of conv2d_pointwise.cuh.
#pragma once
#include "kernels/batch_norm/bn_launch.cuh"
#include "kernels/batch_norm/bn_reduce.cuh"
#include "kernels/conv2d/conv2d_pointwise.cuh"
#include "kernels/conv_bn_act/expand.h"

namespace gm::GM_BACKEND_NS {

/// Nothing is to be loaded before the products.
struct LoadNothing {
  __device__ __forceinline__ void operator()(int, int) const {}
};

// Statistics of yc about a pivot, as bn_statistics_kernel: the mean of eight pixels spread over the tensor.
// Grid: blocks that share the tiles x slices; block: columns x rows warps.
template <int kSteps>
__global__ __launch_bounds__(32 * kPointwiseWarps,
                             expand_blocks(kSteps)) void conv_bn_expand_statistics_kernel(ExpandForward p,
                                                                                          const bf16* x,
                                                                                          const bf16* w,
                                                                                          float* partial,
                                                                                          BnFinish finish) {
  await_launch_before();
  GM_DYN_SHARED(uint4, shared);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, warp_row = warp / p.columns,
            column = warp - warp_row * p.columns, narrow = p.in_units(), pitch = p.in_pitch();
  pointwise_begin(p, x, shared);
  const PointwiseLane<kSteps> lane(p, w, column);

  // The pivot: the eight pixels twice, as 16.
  uint4* const probes = shared + p.held_units();  // where the walk's second tile will be
  for (int e = thread; e < 16 * narrow; e += static_cast<int>(blockDim.x)) {
    const int row = e / narrow, unit = e - row * narrow;
    const auto pixel = static_cast<int64_t>(uint64_t(p.pixels) * unsigned(row % 8) / 8);
    async_copy16(probes + row * pitch + unit, x + pixel * p.c + unit * 8, true);
  }
  async_wait();
  __syncthreads();
  float probe[2][8], pivot[8], s[8] = {}, q[8] = {};
  lane.products(probes, narrow, probe);
  Vec<bf16, 8>::from_float(probe[0]).to_float(pivot);
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

  pointwise_walk(p, x, shared, lane, warp_row, LoadNothing{}, [&](int, int, float(&v)[8]) {
    Vec<bf16, 8>::from_float(v).to_float(v);
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

// yc and a; yc null: not wanted.
template <int kSteps>
__global__ __launch_bounds__(32 * kPointwiseWarps,
                             expand_blocks(kSteps)) void conv_bn_expand_kernel(ExpandForward p, const bf16* x,
                                                                               const bf16* w, BnVectors bn,
                                                                               bf16* yc, bf16* a) {
  await_launch_before();
  GM_DYN_SHARED(uint4, shared);
  const int warp = static_cast<int>(threadIdx.x) / 32, warp_row = warp / p.columns;
  pointwise_begin(p, x, shared);
  const PointwiseLane<kSteps> lane(p, w, warp - warp_row * p.columns);
  const BnAffine<bf16, 8> normalise(bn, min(lane.channel, p.k - 8));
  pointwise_walk(p, x, shared, lane, warp_row, LoadNothing{}, [&](int, int pixel, float(&v)[8]) {
    if (lane.channel >= p.k) return;
    const int64_t at = int64_t{pixel} * p.k + lane.channel;
    const auto product = Vec<bf16, 8>::from_float(v);
    if (yc) product.store(yc + at);
    product.to_float(v);
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = act_value<Act::silu, bf16>(normalise(i, v[i]));
    store_lanes<bf16, 8>(a + at, v);
  });
}

/// c: a forward call of conv_bn_act. memory: batch norm's scratch.
inline void launch_expand_forward(const ExpandForward& p, const OpCall& c, float* memory) {
  const BnVectors v(memory, p.k);
  const BnFinish finish = bn_finish_of(c, 2, 1, v, p.pixels);
  const bf16 *const x = c.in[0].as<bf16>(), *const w = c.in[1].as<bf16>();
  const dim3 summing(static_cast<unsigned>(p.summing_walkers(summing_multiprocessors(c.ctx))),
                     static_cast<unsigned>(p.slices));
  const unsigned threads = static_cast<unsigned>(32 * p.warps());
  steps_switch<1, 2, 3, 4, 5, 8, 10, 12, 16>(p.steps, [&](auto steps) {
    if (BatchNormAttrs(c.attrs).training)
      GM_LAUNCH((conv_bn_expand_statistics_kernel<steps.value>), summing, threads, p.shared_bytes(),
                c.ctx.stream, p, x, w, bn_gpu_partials(memory, p.k), finish);
    else
      bn_launch_running(finish, p.k, BnDraw(), c.ctx);
    GM_LAUNCH((conv_bn_expand_kernel<steps.value>),
              pointwise_grid(p, conv_bn_expand_kernel<steps.value>, c.ctx), threads, p.tiles_bytes(),
              c.ctx.stream, p, x, w, v, c.saved[0].as<bf16>(), c.out[0].as<bf16>());
  });
}

}  // namespace gm::GM_BACKEND_NS
