// Our own convolution for every shape: implicit matrix products with shared-memory tiles. It serves what
// cuDNN refuses, machines without it, and as its oracle.
//
// All three passes are C[M x N] = A[M x D] * B[D x N] with operands gathered on the fly:
//   forward           M output pixels   N filters  D taps (r, s, c)
//   backward data     M input pixels    N channels D (r, s, filter)
//   backward weights  M filters         N taps     D output pixels, cut into slices (grid.z)
//
// Thread mapping and the product itself: kernels/linear/tile_product.cuh.
#pragma once
#include "kernels/common/act.cuh"
#include "kernels/conv2d/conv2d_cuda.h"
#include "kernels/linear/tile_product.cuh"

namespace gm::GM_BACKEND_NS {

struct Pixel {
  int n, y, x;
};
__device__ __forceinline__ Pixel pixel_of(int64_t index, int h, int w) {
  const int64_t row = index / w;
  return {static_cast<int>(row / h), static_cast<int>(row % h), static_cast<int>(index - row * w)};
}

// Four taps (r, s, c..c+3) of the patch of one output pixel. Without vectors a quad may run into the next
// tap.
template <class T, bool kVector>
__device__ __forceinline__ void load_patch(const ConvProblem& g, const T* x, const Pixel& p, int tap,
                                           float (&v)[4]) {
  const int y0 = p.y * g.stride - g.pad_top, x0 = p.x * g.stride - g.pad_left;
  if constexpr (kVector) {
    const int c = tap % g.c, s = tap / g.c % g.kernel, r = tap / g.c / g.kernel;
    const int iy = y0 + r, ix = x0 + s;
    const bool inside = tap < g.taps && iy >= 0 && iy < g.h && ix >= 0 && ix < g.w;
    load4<T, true>(x + ((int64_t{p.n} * g.h + iy) * g.w + ix) * g.c + c, inside ? 4 : 0, v);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int t = tap + i, c = t % g.c, s = t / g.c % g.kernel, r = t / g.c / g.kernel;
      const int iy = y0 + r, ix = x0 + s;
      const bool inside = t < g.taps && iy >= 0 && iy < g.h && ix >= 0 && ix < g.w;
      v[i] = inside ? to_float(x[((int64_t{p.n} * g.h + iy) * g.w + ix) * g.c + c]) : 0.f;
    }
  }
}

// Operands of the product (see tile_product.cuh).
template <class T, bool kVector>
struct ForwardPatches {  // A of forward
  static constexpr bool kAlongDepth = true;
  ConvProblem g;
  const T* x;
  __device__ void load(int64_t pixel, int64_t tap, float (&v)[4]) const {
    if (pixel < g.out_pixels) return load_patch<T, kVector>(g, x, pixel_of(pixel, g.oh, g.ow), int(tap), v);
    load4<T, kVector>(x, 0, v);
  }
};
template <class T, bool kVector>
struct ForwardFilters {  // B of forward: w[filter][tap]
  static constexpr bool kAlongDepth = true;
  ConvProblem g;
  const T* w;
  __device__ void load(int64_t filter, int64_t tap, float (&v)[4]) const {
    load4<T, kVector>(w + filter * g.taps + tap, filter < g.k ? g.taps - int(tap) : 0, v);
  }
};
template <class T, bool kVector>
struct GradientPatches {  // A of backward data: dy at the outputs that read an input pixel; d = (r, s,
                          // filter)
  static constexpr bool kAlongDepth = true;
  ConvProblem g;
  const T* dy;
  __device__ void load(int64_t pixel, int64_t d, float (&v)[4]) const {
    const Pixel p = pixel_of(pixel, g.h, g.w);
    const int reach = kVector ? 1 : 4;
#pragma unroll
    for (int i = 0; i < reach; ++i) {
      const int e = int(d) + i, k = e % g.k, s = e / g.k % g.kernel, r = e / g.k / g.kernel;
      const int y = p.y + g.pad_top - r, x = p.x + g.pad_left - s;
      const int oy = y / g.stride, ox = x / g.stride;
      const bool hit = pixel < g.in_pixels && r < g.kernel && y >= 0 && x >= 0 && oy * g.stride == y &&
                       ox * g.stride == x && oy < g.oh && ox < g.ow;
      const int64_t at = ((int64_t{p.n} * g.oh + oy) * g.ow + ox) * g.k + k;
      if constexpr (kVector)
        load4<T, true>(dy + at, hit ? 4 : 0, v);
      else
        v[i] = hit ? to_float(dy[at]) : 0.f;
    }
  }
};
template <class T, bool kVector>
struct GradientFilters {  // B of backward data: w[filter][r][s][c], four channels
  static constexpr bool kAlongDepth = false;
  ConvProblem g;
  const T* w;
  __device__ void load(int64_t c, int64_t d, float (&v)[4]) const {
    const int k = int(d) % g.k, rs = int(d) / g.k;
    const bool inside = rs < g.kernel * g.kernel;
    load4<T, kVector>(w + (int64_t{k} * g.kernel * g.kernel + rs) * g.c + c, inside ? g.c - int(c) : 0, v);
  }
};
template <class T, bool kVector>
struct PixelGradients {  // A of backward weights: dy[pixel][filter], four filters
  static constexpr bool kAlongDepth = false;
  ConvProblem g;
  const T* dy;
  __device__ void load(int64_t filter, int64_t pixel, float (&v)[4]) const {
    load4<T, kVector>(dy + pixel * g.k + filter, pixel < g.out_pixels ? g.k - int(filter) : 0, v);
  }
};
template <class T, bool kVector>
struct PixelPatches {  // B of backward weights: four taps of a pixel's patch
  static constexpr bool kAlongDepth = false;
  ConvProblem g;
  const T* x;
  __device__ void load(int64_t tap, int64_t pixel, float (&v)[4]) const {
    if (pixel < g.out_pixels) return load_patch<T, kVector>(g, x, pixel_of(pixel, g.oh, g.ow), int(tap), v);
    load4<T, kVector>(x, 0, v);
  }
};

template <class T, bool kVector, Act kAct>
__global__ void __launch_bounds__(kTileThreads)
    conv2d_forward_kernel(ConvProblem g, const T* x, const T* w, const float* bias, const T* residual, T* y) {
  await_launch_before();
  const int64_t m0 = int64_t{blockIdx.x} * kTile, n0 = int64_t{blockIdx.y} * kTile;
  float sum[4][4] = {};
  tile_product(ForwardPatches<T, kVector>{g, x}, ForwardFilters<T, kVector>{g, w}, m0, n0, 0, g.taps, sum);
  const int64_t n = n0 + threadIdx.x % 16 * 4;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t m = m0 + threadIdx.x / 16 * 4 + i;
    if (m >= g.out_pixels) break;
    for (int j = 0; j < 4 && n + j < g.k; ++j) {
      const int64_t at = m * g.k + n + j;
      const float a = act_value<kAct, T>(sum[i][j] + (bias ? bias[n + j] : 0.f));
      y[at] = from_float<T>(residual ? a + to_float(residual[at]) : a);
    }
  }
}

template <class T, bool kVector>
__global__ void __launch_bounds__(kTileThreads)
    conv2d_backward_data_kernel(ConvProblem g, const T* dy, const T* w, T* dx, bool accumulate) {
  await_launch_before();
  const int64_t m0 = int64_t{blockIdx.x} * kTile, n0 = int64_t{blockIdx.y} * kTile;
  float sum[4][4] = {};
  tile_product(GradientPatches<T, kVector>{g, dy}, GradientFilters<T, kVector>{g, w}, m0, n0, 0,
               int64_t{g.kernel} * g.kernel * g.k, sum);
  const int64_t n = n0 + threadIdx.x % 16 * 4;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t m = m0 + threadIdx.x / 16 * 4 + i;
    if (m >= g.in_pixels) break;
    for (int j = 0; j < 4 && n + j < g.c; ++j) {
      T* to = dx + m * g.c + n + j;
      *to = from_float<T>(accumulate ? to_float(*to) + sum[i][j] : sum[i][j]);
    }
  }
}

// First stage: slice blockIdx.z of the pixels into its own copy of dw.
template <class T, bool kVector>
__global__ void __launch_bounds__(kTileThreads)
    conv2d_backward_weights_kernel(ConvProblem g, const T* x, const T* dy, float* partials, int64_t slice) {
  await_launch_before();
  const int64_t m0 = int64_t{blockIdx.x} * kTile, n0 = int64_t{blockIdx.y} * kTile;
  const int64_t begin = blockIdx.z * slice, end = begin + slice < g.out_pixels ? begin + slice : g.out_pixels;
  float sum[4][4] = {};
  // Pixels past the slice would be loaded by its last step unless a slice is whole steps, which it is.
  tile_product(PixelGradients<T, kVector>{g, dy}, PixelPatches<T, kVector>{g, x}, m0, n0, begin, end, sum);
  float* to = partials + int64_t{blockIdx.z} * g.k * g.taps;
  const int64_t n = n0 + threadIdx.x % 16 * 4;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t m = m0 + threadIdx.x / 16 * 4 + i;
    if (m >= g.k) break;
    for (int j = 0; j < 4 && n + j < g.taps; ++j) to[m * g.taps + n + j] = sum[i][j];
  }
}

}  // namespace gm::GM_BACKEND_NS
