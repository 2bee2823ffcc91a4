// Deterministic reductions for kernels: the order of every addition is fixed by the shape of the block and
// grid, never by which thread or block comes first.
#pragma once
#include "kernels/common/simt.h"

namespace gm::GM_BACKEND_NS {

/// Index of the thread in its block; threads 32k ... 32k+31 form warp k.
__device__ __forceinline__ unsigned linear_thread() {
  return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}
__device__ __forceinline__ unsigned block_threads() { return blockDim.x * blockDim.y * blockDim.z; }

/// Sum over the 32 lanes, the same bits in every lane (a butterfly of commutative additions). All lanes must
/// call.
__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
  for (int o = 16; o > 0; o /= 2) v += __shfl_xor_sync(0xffffffffu, v, o);
  return v;
}
/// Sums of N values, a power of two, over the lanes l of equal l % (32 / N): lane l gets that of value
/// l / (32 / N), with N - 1 exchanges instead of the 5 N of warp_sum. All lanes must call; v is used up.
template <int N, int kHalf = N / 2>
__device__ __forceinline__ float scatter_sums(float (&v)[N]) {
  if constexpr (kHalf > 0) {
    constexpr int apart = 32 * kHalf / N;
    const bool upper = linear_thread() & static_cast<unsigned>(apart);
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      const float mine = upper ? v[i + kHalf] : v[i], other = upper ? v[i] : v[i + kHalf];
      v[i] = mine + __shfl_xor_sync(0xffffffffu, other, apart);
    }
    return scatter_sums<N, kHalf / 2>(v);
  } else {
    return v[0];
  }
}

/// A maximum and where it is. The larger value wins, the earlier place among equals, so that the order of
/// meeting does not matter.
struct Peak {
  float value;
  int at;
  __device__ __forceinline__ void meet(float v, int p) {
    const bool wins = (v > value) | ((v == value) & (p < at));  // || and && would branch
    value = wins ? v : value;
    at = wins ? p : at;
  }
  /// That of `width` lanes, a power of two, the same in each. All lanes must call.
  __device__ __forceinline__ void across(int width) {
    for (int o = width / 2; o > 0; o /= 2) {
      const float v = __shfl_xor_sync(0xffffffffu, value, o);
      meet(v, __shfl_xor_sync(0xffffffffu, at, o));
    }
  }
};

/// Sum over the block, the same bits in every thread. Every thread must call; the block must be a multiple of
/// 32 threads. scratch: 32 floats of shared memory, free for the next use when the function returns.
__device__ __forceinline__ float block_sum(float v, float* scratch) {
  const unsigned lane = linear_thread() % 32, warp = linear_thread() / 32, warps = block_threads() / 32;
  v = warp_sum(v);
  if (lane == 0) scratch[warp] = v;
  __syncthreads();
  const float total = warp_sum(lane < warps ? scratch[lane] : 0.0f);
  __syncthreads();
  return total;
}

/// Second stage of a grid-wide reduction without float atomics. Each block writes its partial result with
/// plain stores and calls this; exactly one block, the last to arrive, gets true (in all its threads). That
/// block re-reads the partials of all blocks in index order, so the result does not depend on which block it
/// is.
///
/// ticket: one integer in device memory, zero before the first launch. It counts the `blocks` arrivals and
/// wraps back to zero, so neither a reset kernel nor a new value is needed, also when a CUDA graph is
/// replayed. Every thread of every participating block must call. Read the partials through a plain pointer,
/// not const __restrict__ or __ldg: they were written during this kernel, and the read-only cache may be
/// stale.
__device__ __forceinline__ bool last_block_done(unsigned* ticket, unsigned blocks) {
  __threadfence();  // each thread: my partials are visible before the ticket of my block is
  __syncthreads();  // all threads of the block have come this far
  const bool last =
      __syncthreads_or(linear_thread() == 0 && atomicInc(ticket, blocks - 1) == blocks - 1) != 0;
  if (last) __threadfence();  // no read of a partial may move before the ticket was drawn
  return last;
}

}  // namespace gm::GM_BACKEND_NS
