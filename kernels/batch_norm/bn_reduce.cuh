// Sums over the pixels of a tensor, of batch norm and what is fused with it: thread (f32) -> block (shared
// memory, in a fixed order) -> partials[block] -> the block that arrives last adds them in a fixed order,
// eights of them in f32 and those in f64, and finishes the job: no second launch, no float atomics, and the
// number of blocks is the shape's and the card's, so the bits do not depend on timing.
#pragma once
#include "kernels/batch_norm/bn.cuh"
#include "kernels/common/reduce.cuh"

namespace gm::GM_BACKEND_NS {

// One counter per slice; wraps back to zero by itself. The engine runs one stream per device.
static __device__ unsigned bn_tickets[kBnSlices];

// A plane holds one lane of all threads; the 4 spread the lanes of a channel vector over the banks.
constexpr int kBnPlane = kBnThreads + 4;
/// Shared memory of bn_block_sums, in floats.
template <int Q, int N>
constexpr int kBnTile = Q*(N* kBnPlane + kBnThreads);

/// Sums of each of Q quantities over the rows of a block of `columns` x `rows` threads, columns fastest:
/// calls put(k, sums) in one thread for each channel k of the slice. Every thread must call; a barrier is
/// needed before tile is used again.
template <int Q, int N, class Put>
__device__ __forceinline__ void bn_block_sums(const float (&v)[Q][N], int columns, int rows, float* tile,
                                              Put put) {
  const int t = static_cast<int>(linear_thread()), threads = static_cast<int>(block_threads());
  const int width = columns * N;
  float* const part_sums = tile + Q * N * kBnPlane;
#pragma unroll
  for (int q = 0; q < Q; ++q)
#pragma unroll
    for (int i = 0; i < N; ++i) tile[(q * N + i) * kBnPlane + t] = v[q][i];
  __syncthreads();
  // `parts` threads share a channel: each adds every parts-th row, then the first of them adds the threads.
  const int parts = threads > width ? threads / width : 1;
  for (int base = 0; base < width; base += threads) {
    const int part = t / width, k = base + t - part * width, column = k / N;
    const bool active = part < parts && k < width;
    float sum[Q] = {};
    if (active) {
#pragma unroll 4
      for (int r = part; r < rows; r += parts)
#pragma unroll
        for (int q = 0; q < Q; ++q)
          sum[q] += tile[(q * N + k - column * N) * kBnPlane + r * columns + column];
    }
    if (parts > 1) {
#pragma unroll
      for (int q = 0; q < Q; ++q) part_sums[q * kBnThreads + t] = sum[q];
      __syncthreads();
      if (part == 0) {
#pragma unroll 1
        for (int p = 1; p < parts; ++p)
#pragma unroll
          for (int q = 0; q < Q; ++q) sum[q] += part_sums[q * kBnThreads + p * width + t];
      }
    }
    if (active && part == 0) put(k, sum);
  }
}

/// In the block that arrives last: adds the blocks' sums of two quantities, partial [block][2][channels], for
/// the channels first .. first + width, and finishes each. L: channels of a load. Every thread must call, at
/// most kBnThreads.
template <int L, class Finish>
__device__ void bn_finish_slice(int first, int width, int channels, const float* partial,
                                const Finish& finish) {
  constexpr int kInFlight = 8;
  GM_SHARED(double, sums, [kBnThreads * L]);
  const int t = static_cast<int>(linear_thread()), threads = static_cast<int>(block_threads());
  // Groups of L channels, of the first quantity and then of the second; `parts` threads share a group.
  const int groups = width / L, wanted = 2 * groups;
  const int parts = threads > wanted ? min(threads / wanted, 32) : 1, blocks = static_cast<int>(gridDim.x);
  const int per_round = threads > wanted ? groups : threads / 2;  // groups of a round
  for (int base = 0; base < groups; base += per_round) {
    const int round = min(per_round, groups - base), part = t / (2 * round), item = t - part * 2 * round;
    const int quantity = item / round, group = base + item - quantity * round, channel = first + base * L;
    // Of the channel that the thread will finish: on its way together with the sums, not after them.
    const auto held = finish.load(channel + min(t, round * L - 1));
    double sum[L] = {};
    if (part < parts) {
      const float* const from = partial + int64_t{quantity} * channels + first + group * L;
#pragma unroll 1
      for (int p = part; p < blocks; p += kInFlight * parts) {
        float f[kInFlight][L];
#pragma unroll
        for (int u = 0; u < kInFlight; ++u) {
          const int block = p + u * parts < blocks ? p + u * parts : p;
          load_lanes<float, L>(from + int64_t{block} * 2 * channels, f[u]);
        }
#pragma unroll
        for (int i = 0; i < L; ++i) {
          float eight = 0.f;  // in f32: f64 is 64 times slower on GeForce cards
#pragma unroll
          for (int u = 0; u < kInFlight; ++u) eight += p + u * parts < blocks ? f[u][i] : 0.f;
          sum[i] += static_cast<double>(eight);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < L; ++i) sums[t * L + i] = sum[i];
    __syncthreads();
    for (int k = t; k < round * L; k += threads) {
      double s = 0, q = 0;
#pragma unroll 4
      for (int p = 0; p < parts; ++p) {
        s += sums[p * 2 * round * L + k];
        q += sums[(p * 2 + 1) * round * L + k];
      }
      bn_finish_channel(finish, k == t ? held : finish.load(channel + k), channel + k, s, q);
    }
    __syncthreads();
  }
}

/// Second half of a two-quantity reduction. a, b: this thread's N sums of each quantity for its channels; the
/// block has `columns` x `rows` threads, columns fastest. Channels of a slice: first .. first + columns * N.
/// Every thread of every block of the slice must call. partial: [block][2][channels].
template <int N, class Finish>
__device__ void bn_reduce(const float (&a)[N], const float (&b)[N], int columns, int rows, int first,
                          int channels, float* partial, const Finish& finish) {
  GM_SHARED(float, tile, [kBnTile<2, N>]);
  float v[2][N];
#pragma unroll
  for (int i = 0; i < N; ++i) v[0][i] = a[i], v[1][i] = b[i];
  bn_block_sums<2, N>(v, columns, rows, tile, [&](int k, const float(&s)[2]) {
    if (first + k >= channels) return;
    float* const to = partial + int64_t{blockIdx.x} * 2 * channels + first + k;
    to[0] = s[0];
    to[channels] = s[1];
  });
  constexpr int kLanes = N % 4 == 0 ? 4 : N % 2 == 0 ? 2 : 1;
  if (last_block_done(&bn_tickets[blockIdx.y], gridDim.x))
    bn_finish_slice<kLanes>(first, min(columns * N, channels - first), channels, partial, finish);
}

}  // namespace gm::GM_BACKEND_NS
