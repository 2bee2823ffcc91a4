// First stage of a sum of squares on a card: one block a slice (square_slices). The second stage adds
// `partial` in one block (sum_in_block).
#pragma once
#include "kernels/common/flat.cuh"
#include "kernels/common/reduce.cuh"
#include "kernels/common/squares.h"

namespace gm::GM_BACKEND_NS {

// Slices start at multiples of 1024 elements, so vectors are aligned. Two blocks a multiprocessor are all
// there are (square_slices): asking for no more leaves registers for eight loads under way together.
template <class T>
__global__ __launch_bounds__(kFlatThreads, 2) void square_slices_kernel(const T* w, float* partial, int64_t n,
                                                                        int64_t length) {
  await_launch_before();
  constexpr int V = kVecLanes<T>;
  GM_SHARED(float, scratch, [32]);
  const int64_t begin = blockIdx.x * length, end = begin + length < n ? begin + length : n;
  const int64_t vectors = begin + (end - begin) / V * V;
  float sum = 0;
  using Held = RawLanes<T, V>;
  in_batches<Held, 8>(
      begin + int64_t{threadIdx.x} * V, int64_t{blockDim.x} * V, vectors,
      [&](int64_t i, Held& held) { held.load(w + i); },
      [&](int64_t, const Held& held) {
        float f[V];
        held.to_float(f);
#pragma unroll
        for (int k = 0; k < V; ++k) sum += f[k] * f[k];
      });
  for (int64_t i = vectors + threadIdx.x; i < end; i += blockDim.x) {
    const float f = to_float(w[i]);
    sum += f * f;
  }
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

/// The sum of `partial`, the same in every block that computes it; valid in thread 0.
__device__ __forceinline__ float sum_in_block(const float* partial, int64_t count, float* scratch) {
  float sum = 0;
  for (int64_t k = threadIdx.x; k < count; k += blockDim.x) sum += partial[k];
  return block_sum(sum, scratch);
}

}  // namespace gm::GM_BACKEND_NS
