// Batch norm on the GPU, forward: statistics, and the pass that normalises, activates and what follows.
// Mapping of threads: bn.cuh.
#pragma once
#include "kernels/batch_norm/bn.cuh"

namespace gm::GM_BACKEND_NS {

// Statistics about a pivot (the mean of up to eight pixels spread over the tensor): one pass, no cancellation
// when |mean| >> std.
template <class T, int N>
__global__ __launch_bounds__(kBnThreads, 2) void bn_statistics_kernel(const T* x, int64_t pixels,
                                                                      int channels, int columns,
                                                                      float* partial, BnFinish finish) {
  const int column = threadIdx.x % columns, row = threadIdx.x / columns, rows = blockDim.x / columns;
  const int first = blockIdx.y * columns * N, c = first + column * N;
  float s[N] = {}, q[N] = {};
  if (c < channels) {
    const T* p = x + c;
    float pivot[N] = {};
    const int probes = pixels < 8 ? static_cast<int>(pixels) : 8;
    for (int k = 0; k < probes; ++k) {
      float v[N];
      load_lanes<T, N>(p + pixels * k / probes * channels, v);
#pragma unroll
      for (int i = 0; i < N; ++i) pivot[i] += v[i] / probes;
    }
    if (blockIdx.x == 0 && row == 0)
#pragma unroll
      for (int i = 0; i < N; ++i) finish.v.pivot[c + i] = pivot[i];
    const int64_t step = int64_t{gridDim.x} * rows;
    int64_t r = int64_t{blockIdx.x} * rows + row;
    auto add = [&](const float(&v)[N]) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const float d = v[i] - pivot[i];
        s[i] += d;
        q[i] += d * d;
      }
    };
    for (; r + (kBnRows - 1) * step < pixels; r += kBnRows * step) {
      float v[kBnRows][N];
#pragma unroll
      for (int u = 0; u < kBnRows; ++u) load_lanes<T, N>(p + (r + u * step) * channels, v[u]);
#pragma unroll
      for (int u = 0; u < kBnRows; ++u) add(v[u]);
    }
    for (; r < pixels; r += step) {
      float v[N];
      load_lanes<T, N>(p + r * channels, v);
      add(v);
    }
  }
  bn_reduce<N>(s, q, columns, rows, first, channels, partial, finish);
}

// Inference and frozen BN: coefficients from the running statistics. One thread per channel.
static __global__ void bn_running_kernel(BnFinish f, int channels) {
  const int c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= channels) return;
  const float inv = static_cast<float>(1.0 / sqrt(static_cast<double>(f.running_var[c]) + f.eps));
  f.v.mean[c] = f.running_mean[c];
  f.v.scale[c] = f.gamma[c] * inv;
  f.v.beta[c] = f.beta[c];
  if (f.mean) f.mean[c] = f.running_mean[c];
  if (f.inv_std) f.inv_std[c] = inv;
}
/// What follows the activation: y = act(z) * factor of the image * gate of image and channel + residual.
template <class T>
struct BnTail {
  const T* residual = nullptr;    // null: none
  const float* factor = nullptr;  // per image; null: 1
  const float* gate = nullptr;    // [image][channel]; null: 1
  int image_pixels = 1;
};

/// y = act(z), with a tail when kTail; y may be x or the residual. Images that stochastic depth drops are not
/// read.
template <class T, int N, Act A, bool kTail>
__global__ __launch_bounds__(kBnThreads, 2) void bn_apply_kernel(const T* x, T* y, int64_t pixels,
                                                                 int channels, int columns, BnVectors k,
                                                                 BnTail<T> tail) {
  const int column = threadIdx.x % columns, rows = blockDim.x / columns;
  const int c = (blockIdx.y * columns + column) * N;
  if (c >= channels) return;
  float mean[N], scale[N], beta[N];
  load_lanes<float, N>(k.mean + c, mean);
  load_lanes<float, N>(k.scale + c, scale);
  load_lanes<float, N>(k.beta + c, beta);
  const int64_t step = int64_t{gridDim.x} * rows;
  for (int64_t r = int64_t{blockIdx.x} * rows + threadIdx.x / columns; r < pixels; r += kBnRows * step) {
    float v[kBnRows][N], residual[kTail ? kBnRows : 1][N], factor[kBnRows];
#pragma unroll
    for (int u = 0; u < kBnRows; ++u) {
      const int64_t row = r + u * step;
      if (row >= pixels) continue;
      factor[u] = 1.f;
      if constexpr (kTail) {
        if (tail.residual) load_lanes<T, N>(tail.residual + row * channels + c, residual[u]);
        if (tail.factor) factor[u] = tail.factor[bn_image(row, tail.image_pixels)];
      }
      if (factor[u] != 0.f) load_lanes<T, N>(x + row * channels + c, v[u]);
    }
#pragma unroll
    for (int u = 0; u < kBnRows; ++u) {
      const int64_t row = r + u * step;
      if (row >= pixels) continue;
#pragma unroll
      for (int i = 0; i < N; ++i)
        v[u][i] = factor[u] != 0.f ? factor[u] * act_value<A>((v[u][i] - mean[i]) * scale[i] + beta[i]) : 0.f;
      if constexpr (kTail) {
        if (tail.gate) {
          float s[N];
          load_lanes<float, N>(tail.gate + int64_t{bn_image(row, tail.image_pixels)} * channels + c, s);
#pragma unroll
          for (int i = 0; i < N; ++i) v[u][i] *= s[i];
        }
        if (tail.residual) {
#pragma unroll
          for (int i = 0; i < N; ++i) v[u][i] += residual[u][i];
        }
      }
      store_lanes<T, N>(y + row * channels + c, v[u]);
    }
  }
}

/// The same with the mean over each image's pixels; y null: only that. Block = one image x one slice, so that
/// the mean needs no second stage.
template <class T, int N, Act A>
__global__ __launch_bounds__(kBnThreads, 2) void bn_apply_pool_kernel(const T* x, T* y, float* pooled,
                                                                      int pixels, int channels, int columns,
                                                                      BnVectors k) {
  GM_SHARED(float, tile, [kBnThreads * N]);
  const int column = threadIdx.x % columns, rows = blockDim.x / columns;
  const int first = blockIdx.y * columns * N, c = first + column * N;
  float sum[N] = {};
  if (c < channels) {
    float mean[N], scale[N], beta[N];
    load_lanes<float, N>(k.mean + c, mean);
    load_lanes<float, N>(k.scale + c, scale);
    load_lanes<float, N>(k.beta + c, beta);
    const int64_t image = int64_t{blockIdx.x} * pixels * channels;
    for (int r = threadIdx.x / columns; r < pixels; r += rows) {
      float v[N];
      load_lanes<T, N>(x + image + int64_t{r} * channels + c, v);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        v[i] = act_value<A>((v[i] - mean[i]) * scale[i] + beta[i]);
        sum[i] += v[i];
      }
      if (y) store_lanes<T, N>(y + image + int64_t{r} * channels + c, v);
    }
  }
#pragma unroll
  for (int i = 0; i < N; ++i) tile[threadIdx.x * N + i] = sum[i];
  __syncthreads();
  const int width = columns * N;
  for (int j = threadIdx.x; j < width && first + j < channels; j += blockDim.x) {
    float total = 0.f;
    for (int r = 0; r < rows; ++r) total += tile[r * width + j];
    pooled[int64_t{blockIdx.x} * channels + first + j] = total / static_cast<float>(pixels);
  }
}

// ---- launchers ----

/// y = act(BN(x)), with a tail or, when pooled is not null, pooled means, and then y may be null;
/// coefficients known.
template <class T, Act A>
void bn_launch_apply(const T* x, T* y, float* pooled, const Shape& shape, BnVectors k, const Context& ctx,
                     const BnTail<T>& tail = {}) {
  const int64_t channels = shape.channels(), pixels = shape.pixels();
  bn_lanes<T>(channels, [&](auto n) {
    constexpr int N = decltype(n)::value;
    const BnGrid g(pixels, channels, N);
    if (pooled)
      GM_LAUNCH((bn_apply_pool_kernel<T, N, A>), dim3(unsigned(shape[0]), unsigned(g.slices)), kBnThreads, 0,
                ctx.stream, x, y, pooled, static_cast<int>(pixels / shape[0]), static_cast<int>(channels),
                g.columns, k);
    else if (tail.residual || tail.factor || tail.gate)
      GM_LAUNCH((bn_apply_kernel<T, N, A, true>), g.grid(), kBnThreads, 0, ctx.stream, x, y, pixels,
                static_cast<int>(channels), g.columns, k, tail);
    else
      GM_LAUNCH((bn_apply_kernel<T, N, A, false>), g.grid(), kBnThreads, 0, ctx.stream, x, y, pixels,
                static_cast<int>(channels), g.columns, k, tail);
  });
}
/// Forward of batch_norm and batch_norm_act. Workspace: vectors [6][C], then partials.
template <class T, Act A>
void bn_op_forward(const OpCall& c, bool pool) {
  const Shape& s = c.in[0].shape();
  const int64_t channels = s.channels(), pixels = s.pixels();
  float* memory = static_cast<float*>(c.workspace.data);
  const BnVectors v(memory, channels);
  const BnFinish finish = bn_finish_of(c, 1, 0, v, pixels);
  const T* x = c.in[0].as<T>();
  if (BatchNormAttrs(c.attrs).training)
    bn_lanes<T>(channels, [&](auto n) {
      constexpr int N = decltype(n)::value;
      const BnGrid g(pixels, channels, N);
      GM_LAUNCH((bn_statistics_kernel<T, N>), g.grid(), kBnThreads, 0, c.ctx.stream, x, pixels,
                static_cast<int>(channels), g.columns, memory + 8 * channels, finish);
    });
  else
    GM_LAUNCH(bn_running_kernel, bn_vector_blocks(channels), 128, 0, c.ctx.stream, finish,
              static_cast<int>(channels));
  bn_launch_apply<T, A>(x, c.out[0].as<T>(), pool ? c.out[1].as<float>() : nullptr, s, v, c.ctx,
                        {.residual = c.in.size() > 3 ? c.in[3].as<T>() : nullptr,
                         .factor = bn_launch_factors(c, s),
                         .image_pixels = static_cast<int>(pixels / s[0])});
}

}  // namespace gm::GM_BACKEND_NS
