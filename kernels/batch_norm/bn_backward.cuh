// Batch norm on the GPU, backward: two sums per channel, then dx. Mapping of threads: bn.cuh.
#pragma once
#include "kernels/batch_norm/bn.cuh"

namespace gm::GM_BACKEND_NS {

// Backward: coefficients from the saved statistics; c = q = 0, what frozen BN needs. One thread per channel.
static __global__ void bn_saved_kernel(const float* mean, const float* inv_std, const float* gamma,
                                       const float* beta, BnVectors v, int channels) {
  const int c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= channels) return;
  v.mean[c] = mean[c];
  v.scale[c] = gamma[c] * inv_std[c];
  v.beta[c] = beta ? beta[c] : 0.f;
  v.c[c] = v.q[c] = 0.f;
}

/// Gradient of act's output: dy per pixel (null = 0) times the image's factor of stochastic depth (null = 1)
/// and gate[image][channel] of squeeze-and-excitation (null = 1), plus dpool[image] / image_pixels (null =
/// 0).
template <class T>
struct BnGradient {
  const T* dy;
  const float* dpool;
  int image_pixels;
  const float* factor = nullptr;
  const float* gate = nullptr;

  __device__ __forceinline__ float factor_of(int64_t pixel) const {
    return factor ? factor[bn_image(pixel, image_pixels)] : 1.f;
  }
};
template <class T, int N, Act A>
__device__ __forceinline__ void bn_dz(const BnGradient<T>& g, int64_t pixel, int channels, int c,
                                      const float (&centred)[N], const float (&scale)[N],
                                      const float (&beta)[N], float (&dz)[N]) {
  const float factor = g.factor_of(pixel);
  if (g.dy && factor != 0.f) {
    load_lanes<T, N>(g.dy + pixel * channels + c, dz);
#pragma unroll
    for (int i = 0; i < N; ++i) dz[i] *= factor;
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) dz[i] = 0.f;
  }
  if (g.gate) {
    float s[N];
    load_lanes<float, N>(g.gate + int64_t{bn_image(pixel, g.image_pixels)} * channels + c, s);
#pragma unroll
    for (int i = 0; i < N; ++i) dz[i] *= s[i];
  }
  if (g.dpool) {
    float d[N];
    load_lanes<float, N>(g.dpool + int64_t{bn_image(pixel, g.image_pixels)} * channels + c, d);
#pragma unroll
    for (int i = 0; i < N; ++i) dz[i] += d[i] / static_cast<float>(g.image_pixels);
  }
  if constexpr (A != Act::none) {
#pragma unroll
    for (int i = 0; i < N; ++i) dz[i] *= act_slope<A>(centred[i] * scale[i] + beta[i]);
  }
}

/// Sums dz and dz (x - mean). x null: only sum dz (a bias gradient).
template <class T, int N, Act A>
__global__ __launch_bounds__(kBnThreads, 2) void bn_backward_sums_kernel(const T* x, BnGradient<T> g,
                                                                         int64_t pixels, int channels,
                                                                         int columns, float* partial,
                                                                         BnFinishBackward finish) {
  const int column = threadIdx.x % columns, rows = blockDim.x / columns;
  const int first = blockIdx.y * columns * N, c = first + column * N;
  float s[N] = {}, q[N] = {};
  if (c < channels) {
    float mean[N] = {}, scale[N] = {}, beta[N] = {};
    if (x) {
      load_lanes<float, N>(finish.v.mean + c, mean);
      load_lanes<float, N>(finish.v.scale + c, scale);
      load_lanes<float, N>(finish.v.beta + c, beta);
    }
    const int64_t step = int64_t{gridDim.x} * rows;
#pragma unroll 2
    for (int64_t r = int64_t{blockIdx.x} * rows + threadIdx.x / columns; r < pixels; r += step) {
      if (g.factor_of(r) == 0.f) continue;  // a dropped image adds nothing
      float v[N] = {}, dz[N];
      if (x) load_lanes<T, N>(x + r * channels + c, v);
#pragma unroll
      for (int i = 0; i < N; ++i) v[i] -= mean[i];
      bn_dz<T, N, A>(g, r, channels, c, v, scale, beta, dz);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        s[i] += dz[i];
        q[i] += dz[i] * v[i];
      }
    }
  }
  bn_reduce<N>(s, q, columns, rows, first, channels, partial, finish);
}

/// dx = scale * dz - c - q * (x - mean); dx may be dy.
template <class T, int N, Act A>
__global__ __launch_bounds__(kBnThreads, 2) void bn_backward_apply_kernel(const T* x, BnGradient<T> g, T* dx,
                                                                          int64_t pixels, int channels,
                                                                          int columns, BnVectors k,
                                                                          bool accumulate) {
  const int column = threadIdx.x % columns, rows = blockDim.x / columns;
  const int c = (blockIdx.y * columns + column) * N;
  if (c >= channels) return;
  float mean[N], scale[N], beta[N], shift[N], slope[N];
  load_lanes<float, N>(k.mean + c, mean);
  load_lanes<float, N>(k.scale + c, scale);
  load_lanes<float, N>(k.beta + c, beta);
  load_lanes<float, N>(k.c + c, shift);
  load_lanes<float, N>(k.q + c, slope);
  const int64_t step = int64_t{gridDim.x} * rows;
  for (int64_t r = int64_t{blockIdx.x} * rows + threadIdx.x / columns; r < pixels; r += step) {
    float v[N], dz[N];
    load_lanes<T, N>(x + r * channels + c, v);
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] -= mean[i];
    bn_dz<T, N, A>(g, r, channels, c, v, scale, beta, dz);
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = scale[i] * dz[i] - shift[i] - slope[i] * v[i];
    if (accumulate) {
      float old[N];
      load_lanes<T, N>(dx + r * channels + c, old);
#pragma unroll
      for (int i = 0; i < N; ++i) v[i] += old[i];
    }
    store_lanes<T, N>(dx + r * channels + c, v);
  }
}

// ---- launchers ----

template <class T, Act A>
void bn_launch_sums(const T* x, const BnGradient<T>& g, int64_t pixels, int64_t channels, float* partial,
                    const BnFinishBackward& finish, const Context& ctx) {
  bn_lanes<T>(channels, [&](auto n) {
    constexpr int N = decltype(n)::value;
    const BnGrid grid(pixels, channels, N);
    GM_LAUNCH((bn_backward_sums_kernel<T, N, A>), grid.grid(), kBnThreads, 0, ctx.stream, x, g, pixels,
              static_cast<int>(channels), grid.columns, partial, finish);
  });
}

template <class T, Act A>
void bn_op_backward(const OpCall& c, bool pool) {
  const Shape& s = c.in[0].shape();
  const int64_t channels = s.channels(), pixels = s.pixels();
  float* memory = static_cast<float*>(c.workspace.data);
  const BnVectors v(memory, channels);
  const T* x = c.in[0].as<T>();
  const BnGradient<T> g{c.dout[0].as<T>(), pool ? c.dout[1].as<float>() : nullptr,
                        static_cast<int>(pixels / s[0]), bn_launch_factors(c, s)};
  const float* inv_std = c.saved[1].as<float>();
  GM_LAUNCH(bn_saved_kernel, bn_vector_blocks(channels), 128, 0, c.ctx.stream, c.saved[0].as<float>(),
            inv_std, c.in[1].as<float>(), A == Act::none ? nullptr : c.in[2].as<float>(), v,
            static_cast<int>(channels));
  const BnFinishBackward finish = bn_finish_backward_of(c, 1, inv_std, v, pixels);
  if (!finish.frozen || finish.dgamma || finish.dbeta)
    bn_launch_sums<T, A>(x, g, pixels, channels, memory + 8 * channels, finish, c.ctx);
  if (!c.din[0]) return;
  bn_lanes<T>(channels, [&](auto n) {
    constexpr int N = decltype(n)::value;
    const BnGrid grid(pixels, channels, N);
    GM_LAUNCH((bn_backward_apply_kernel<T, N, A>), grid.grid(), kBnThreads, 0, c.ctx.stream, x, g,
              c.din[0].view.as<T>(), pixels, static_cast<int>(channels), grid.columns, v,
              c.din[0].mode == GradMode::accumulate);
  });
}

}  // namespace gm::GM_BACKEND_NS
