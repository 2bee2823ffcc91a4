// What is behind the sums of a convolution: a residual in our own kernels; and what cuDNN leaves to do, the
// epilogue where it has no fused plan, and gradients that are to be added to others.
#pragma once
#include "kernels/common/act.cuh"
#include "kernels/common/flat.cuh"

namespace gm::GM_BACKEND_NS {

/// What our convolutions on tensor cores read and write: y = act(x * w + bias) + residual. bias, residual:
/// may be null.
struct Bf16Conv {
  const bf16 *x, *w;
  const float* bias;
  Act act;
  const bf16* residual;
  bf16* y;
};

/// v += held. A residual is loaded before the results are stored: a load behind a store waits for it in vain,
/// as the two might meet.
template <int L>
__device__ __forceinline__ void add_held(const Vec<bf16, L>& held, float (&v)[L]) {
  float more[L];
  held.to_float(more);
#pragma unroll
  for (int i = 0; i < L; ++i) v[i] += more[i];
}

// y = act(y + bias) + residual in place. One thread per vector of V channels; k is a multiple of
// V, so a vector lies within a pixel.
template <class T, Act kAct, int V>
__global__ void conv2d_epilogue_kernel(T* y, const float* bias, const T* residual, int64_t n, int k) {
  await_launch_before();
  for_lanes<V>(n, [&](int64_t i, auto lanes) {
    constexpr int L = decltype(lanes)::value;
    float f[L], r[L], shift[L] = {};
    if (bias) load_lanes<float, L>(bias + i % k, shift);  // first: behind the others it would wait for them
    load_lanes<T, L>(y + i, f);
    if (residual) load_lanes<T, L>(residual + i, r);
#pragma unroll
    for (int j = 0; j < L; ++j) {
      f[j] = act_value<kAct, T>(f[j] + shift[j]);
      if (residual) f[j] += r[j];
    }
    store_lanes<T, L>(y + i, f);
  });
}
// A gradient left in the workspace, into dw.
template <class T>
__global__ void conv2d_add_gradient_kernel(const T* sums, float* dw, int64_t n, bool accumulate) {
  await_launch_before();
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < n;
       i += int64_t{gridDim.x} * blockDim.x)
    dw[i] = accumulate ? dw[i] + to_float(sums[i]) : to_float(sums[i]);
}

}  // namespace gm::GM_BACKEND_NS
