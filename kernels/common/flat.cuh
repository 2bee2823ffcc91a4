// Flat elementwise kernels: n elements in vectors of V by a grid stride, then a scalar tail. Tensors start at
// multiples of 256 bytes (the planner's alignment), so vectors counted from their start are aligned.
#pragma once
#include "kernels/common/card_limits.h"
#include "kernels/common/ceil_div.h"
#include "kernels/common/context.h"
#include "kernels/common/dispatch.h"
#include "kernels/common/math.cuh"
#include "kernels/common/simt.h"

namespace gm::GM_BACKEND_NS {

/// V (4 or 1) neighbouring bytes as a word, the first in the lowest bits.
template <int V>
__device__ __forceinline__ unsigned load_bytes(const uint8_t* p) {
  static_assert(V == 4 || V == 1);
  if constexpr (V == 4)
    return reinterpret_cast<const uint1*>(p)->x;
  else
    return *p;
}

template <int V>
struct Lanes {
  static constexpr int value = V;
};

/// body(first element, Lanes<V>): every vector of V elements and every element of the tail, each once.
/// Neighbouring threads get neighbouring vectors; a grid smaller than the work strides on.
template <int V, class Body>
__device__ __forceinline__ void for_lanes(int64_t n, Body body) {
  const int64_t thread = blockIdx.x * int64_t{blockDim.x} + threadIdx.x,
                stride = int64_t{gridDim.x} * blockDim.x, vectors = n / V;
  for (int64_t i = thread; i < vectors; i += stride) body(i * V, Lanes<V>{});
  if constexpr (V > 1)
    for (int64_t i = vectors * V + thread; i < n; i += stride) body(i, Lanes<1>{});
}

/// Blocks of a grid-stride loop over n items: enough to fill the card, never more than the work.
inline unsigned grid_for(int64_t n, int threads, const Context& ctx) {
  const int64_t blocks = ceil_div(n, threads), most = int64_t{8} * multiprocessors(ctx);
  return static_cast<unsigned>(blocks < 1 ? 1 : blocks < most ? blocks : most);
}

constexpr int kFlatThreads = 256;
/// Blocks of so many threads that a multiprocessor holds, for launch bounds.
#if defined(__CUDA_ARCH__) && (__CUDA_ARCH__ == 860 || __CUDA_ARCH__ == 890)
constexpr int kFlatBlocks = 6;
#else
constexpr int kFlatBlocks = 8;
#endif
/// Grid of a flat kernel over n elements in vectors of `lanes`.
inline unsigned flat_grid(int64_t n, int lanes, const Context& ctx) {
  return grid_for(ceil_div(n, lanes), kFlatThreads, ctx);
}

}  // namespace gm::GM_BACKEND_NS
