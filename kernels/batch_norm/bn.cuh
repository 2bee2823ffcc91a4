// Batch norm on the GPU: the kernels of every op with a BN inside.
//
// Mapping of all of them: a thread owns N neighbouring channels (16 bytes when C allows, else one) and walks
// down pixels; CT such threads side by side form a slice of 64..128 channels (whole sectors of 32 bytes), the
// rows of a block work on different pixels. Per-channel numbers stay in registers, neighbouring threads read
// neighbouring addresses, and narrow slices keep partial sums small beside the tensor. Four rows are loaded
// before the first is used: latency is hidden by bytes in flight, not by occupancy alone.
//
// Sums: thread (f32) -> block (shared memory, in row order) -> partials[block] -> the block that arrives last
// adds them in index order in f64 and finishes the job: no second launch, no float atomics, and the number of
// blocks depends on the shape only, so the bits do not depend on timing or on the card.
//
// Braces round a loop with #pragma unroll under `if constexpr` are not style: nvcc 13.0 drops the statement
// that follows a discarded branch of that form without them.
#pragma once
#include "kernels/activation/activation.h"
#include "kernels/batch_norm/batch_norm.h"
#include "kernels/batch_norm/bn_workspace.h"
#include "kernels/common/act.cuh"
#include "kernels/common/reduce.cuh"

namespace gm::GM_BACKEND_NS {

constexpr int kBnThreads = 256, kBnRows = 4;  // threads a block; rows in flight
constexpr int kBnSlices = 1024;
// One counter per slice; wraps back to zero by itself. The engine runs one stream per device.
static __device__ unsigned bn_tickets[kBnSlices];

template <class T, int N>
__device__ __forceinline__ void load_lanes(const T* p, float (&f)[N]) {
  if constexpr (N == 1) {
    f[0] = to_float(*p);
  } else if constexpr (N * sizeof(T) > 16) {  // a vector of f32 beside bf16 data
    float low[N / 2], high[N / 2];
    Vec<T, N / 2>::load(p).to_float(low);
    Vec<T, N / 2>::load(p + N / 2).to_float(high);
#pragma unroll
    for (int i = 0; i < N / 2; ++i) f[i] = low[i], f[i + N / 2] = high[i];
  } else {
    Vec<T, N>::load(p).to_float(f);
  }
}
template <class T, int N>
__device__ __forceinline__ void store_lanes(T* p, const float (&f)[N]) {
  if constexpr (N == 1)
    *p = from_float<T>(f[0]);
  else
    Vec<T, N>::from_float(f).store(p);
}

/// Per-channel numbers, C floats each, one after the other in the workspace.
struct BnVectors {
  float *pivot, *mean, *scale, *beta, *c, *q;
  BnVectors(float* memory, int64_t channels)
      : pivot(memory),
        mean(memory + channels),
        scale(memory + 2 * channels),
        beta(memory + 3 * channels),
        c(memory + 4 * channels),
        q(memory + 5 * channels) {}
};

/// How rows and channels are dealt to blocks; a function of the shape only.
struct BnGrid {
  int columns, rows;  // threads of a block: columns (CT) x rows
  int slices, blocks;
  BnGrid(int64_t pixels, int64_t channels, int lanes) {
    const int64_t vectors = channels / lanes;
    columns = 1;
    while (columns < vectors && columns * lanes < 64) columns *= 2;
    rows = kBnThreads / columns;
    slices = static_cast<int>((vectors + columns - 1) / columns);
    GM_CHECK(slices <= kBnSlices, "batch norm: too many channels");
    const int64_t most = std::max<int64_t>(1, std::min<int64_t>(kBnGpuBlocks, 512 / slices));
    blocks = static_cast<int>(std::clamp<int64_t>(pixels / (int64_t{rows} * kBnRows * 2), 1, most));
  }
  dim3 grid() const { return dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(slices)); }
};

/// Everything the last block of a slice needs to turn sums into statistics.
struct BnFinish {
  BnVectors v;
  const float *gamma, *beta;
  float eps, momentum;
  bool unbiased;
  float *running_mean, *running_var, *mean, *inv_std;
  double pixels;
};
__device__ __forceinline__ void bn_finish_channel(const BnFinish& f, int c, double sum, double square) {
  const double shift = sum / f.pixels;
  const double m2 = fmax(square - sum * shift, 0.0), variance = m2 / f.pixels;
  const double mean = static_cast<double>(f.v.pivot[c]) + shift, inv = 1.0 / sqrt(variance + f.eps);
  const double kept = f.unbiased && f.pixels > 1 ? m2 / (f.pixels - 1) : variance;
  f.running_mean[c] = static_cast<float>(f.momentum * f.running_mean[c] + (1.0 - f.momentum) * mean);
  f.running_var[c] = static_cast<float>(f.momentum * f.running_var[c] + (1.0 - f.momentum) * kept);
  if (f.mean) f.mean[c] = static_cast<float>(mean);
  if (f.inv_std) f.inv_std[c] = static_cast<float>(inv);
  f.v.mean[c] = static_cast<float>(mean);
  f.v.scale[c] = static_cast<float>(f.gamma[c] * inv);
  f.v.beta[c] = f.beta[c];
}

/// The same for the backward sums: dz and dz (x - mean).
struct BnFinishBackward {
  BnVectors v;
  const float* inv_std;
  float *dgamma, *dbeta;  // null: not wanted
  bool add_gamma, add_beta, frozen;
  double pixels;
};
__device__ __forceinline__ void bn_finish_channel(const BnFinishBackward& f, int c, double sum,
                                                  double product) {
  const double inv = f.inv_std ? f.inv_std[c] : 0.0;
  if (f.dgamma) f.dgamma[c] = static_cast<float>(product * inv) + (f.add_gamma ? f.dgamma[c] : 0.f);
  if (f.dbeta) f.dbeta[c] = static_cast<float>(sum) + (f.add_beta ? f.dbeta[c] : 0.f);
  if (f.frozen) return;
  const double scale = f.v.scale[c];
  f.v.c[c] = static_cast<float>(scale * sum / f.pixels);
  f.v.q[c] = static_cast<float>(scale * inv * inv * product / f.pixels);
}

/// Second half of a two-quantity reduction. `mine`: this thread's N sums of each quantity for the channels
/// from c on (ignored when !active); the block has `columns` x `rows` threads, columns fastest. Channels of a
/// slice: first .. first + width. Every thread of every block of the slice must call.
template <int N, class Finish>
__device__ void bn_reduce(const float (&a)[N], const float (&b)[N], int columns, int rows, int first,
                          int channels, float* partial, const Finish& finish) {
  GM_SHARED(float, tile, [2][kBnThreads * N]);
  GM_SHARED(double, sums, [2][kBnThreads]);
  const int t = threadIdx.x, width = columns * N;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    tile[0][t * N + i] = a[i];
    tile[1][t * N + i] = b[i];
  }
  __syncthreads();
  for (int k = t; k < width && first + k < channels; k += blockDim.x) {
    float s = 0.f, q = 0.f;
    for (int r = 0; r < rows; ++r) {
      s += tile[0][r * width + k];
      q += tile[1][r * width + k];
    }
    partial[(int64_t{blockIdx.x} * 2) * channels + first + k] = s;
    partial[(int64_t{blockIdx.x} * 2 + 1) * channels + first + k] = q;
  }
  if (!last_block_done(&bn_tickets[blockIdx.y], gridDim.x)) return;
  // `parts` threads share a channel: each adds every parts-th partial, then thread 0 of them adds the
  // threads.
  const int parts = static_cast<int>(blockDim.x) / width > 0 ? static_cast<int>(blockDim.x) / width : 1;
  for (int base = 0; base < width; base += static_cast<int>(blockDim.x)) {
    const int k = base + t % width, part = t / width;
    double s = 0, q = 0;
    if (part < parts && first + k < channels)
      for (unsigned p = part; p < gridDim.x; p += parts) {
        s += partial[(int64_t{p} * 2) * channels + first + k];
        q += partial[(int64_t{p} * 2 + 1) * channels + first + k];
      }
    sums[0][t] = s;
    sums[1][t] = q;
    __syncthreads();
    if (part == 0 && first + k < channels) {
      for (int r = 1; r < parts; ++r) {
        s += sums[0][r * width + t];
        q += sums[1][r * width + t];
      }
      bn_finish_channel(finish, first + k, s, q);
    }
    __syncthreads();
  }
}

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

/// y = act(z); y may be x.
template <class T, int N, Act A>
__global__ __launch_bounds__(kBnThreads, 2) void bn_apply_kernel(const T* x, T* y, int64_t pixels,
                                                                 int channels, int columns, BnVectors k) {
  const int column = threadIdx.x % columns, rows = blockDim.x / columns;
  const int c = (blockIdx.y * columns + column) * N;
  if (c >= channels) return;
  float mean[N], scale[N], beta[N];
  load_lanes<float, N>(k.mean + c, mean);
  load_lanes<float, N>(k.scale + c, scale);
  load_lanes<float, N>(k.beta + c, beta);
  const int64_t step = int64_t{gridDim.x} * rows;
  for (int64_t r = int64_t{blockIdx.x} * rows + threadIdx.x / columns; r < pixels; r += kBnRows * step) {
    float v[kBnRows][N];
#pragma unroll
    for (int u = 0; u < kBnRows; ++u)
      if (r + u * step < pixels) load_lanes<T, N>(x + (r + u * step) * channels + c, v[u]);
#pragma unroll
    for (int u = 0; u < kBnRows; ++u)
      if (r + u * step < pixels) {
#pragma unroll
        for (int i = 0; i < N; ++i) v[u][i] = act_value<A>((v[u][i] - mean[i]) * scale[i] + beta[i]);
        store_lanes<T, N>(y + (r + u * step) * channels + c, v[u]);
      }
  }
}

/// The same with the mean over each image's pixels. Block = one image x one slice, so that the mean needs no
/// second stage.
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
      store_lanes<T, N>(y + image + int64_t{r} * channels + c, v);
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

/// Gradient of act's output: dy per pixel (null = 0) plus dpool[image] * scale (null = 0).
template <class T>
struct BnGradient {
  const T* dy;
  const float* dpool;
  int image_pixels;
};
template <class T, int N, Act A>
__device__ __forceinline__ void bn_dz(const BnGradient<T>& g, int64_t pixel, int channels, int c,
                                      const float (&centred)[N], const float (&scale)[N],
                                      const float (&beta)[N], float (&dz)[N]) {
  if (g.dy)
    load_lanes<T, N>(g.dy + pixel * channels + c, dz);
  else {
#pragma unroll
    for (int i = 0; i < N; ++i) dz[i] = 0.f;
  }
  if (g.dpool) {
    float d[N];
    load_lanes<float, N>(g.dpool + pixel / g.image_pixels * channels + c, d);
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

/// Calls f with the number of channels a thread owns: as many as 16 bytes hold, or one.
template <class T, class F>
void bn_lanes(int64_t channels, F&& f) {
  if (channels % kVecLanes<T> == 0) return f(std::integral_constant<int, kVecLanes<T>>{});
  return f(std::integral_constant<int, 1>{});
}
inline BnFinish bn_finish_of(const OpCall& c, int gamma, int saved_mean, BnVectors v, int64_t pixels) {
  const BatchNormAttrs a(c.attrs);
  return {.v = v,
          .gamma = c.in[gamma].as<float>(),
          .beta = c.in[gamma + 1].as<float>(),
          .eps = a.eps,
          .momentum = a.momentum,
          .unbiased = a.unbiased,
          .running_mean = c.state[0].as<float>(),
          .running_var = c.state[1].as<float>(),
          .mean = c.saved[saved_mean].as<float>(),
          .inv_std = c.saved[saved_mean + 1].as<float>(),
          .pixels = static_cast<double>(pixels)};
}
inline unsigned bn_vector_blocks(int64_t channels) { return static_cast<unsigned>((channels + 127) / 128); }

/// y = act(BN(x)) (+ pooled means when pooled is not null), coefficients known.
template <class T, Act A>
void bn_launch_apply(const T* x, T* y, float* pooled, const Shape& shape, BnVectors k, const Context& ctx) {
  const int64_t channels = shape.channels(), pixels = shape.pixels();
  bn_lanes<T>(channels, [&](auto n) {
    constexpr int N = decltype(n)::value;
    const BnGrid g(pixels, channels, N);
    if (pooled)
      GM_LAUNCH((bn_apply_pool_kernel<T, N, A>), dim3(unsigned(shape[0]), unsigned(g.slices)), kBnThreads, 0,
                ctx.stream, x, y, pooled, static_cast<int>(pixels / shape[0]), static_cast<int>(channels),
                g.columns, k);
    else
      GM_LAUNCH((bn_apply_kernel<T, N, A>), g.grid(), kBnThreads, 0, ctx.stream, x, y, pixels,
                static_cast<int>(channels), g.columns, k);
  });
}
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
  bn_launch_apply<T, A>(x, c.out[0].as<T>(), pool ? c.out[1].as<float>() : nullptr, s, v, c.ctx);
}

template <class T, Act A>
void bn_op_backward(const OpCall& c, bool pool) {
  const Shape& s = c.in[0].shape();
  const int64_t channels = s.channels(), pixels = s.pixels();
  const bool frozen = !BatchNormAttrs(c.attrs).training;
  float* memory = static_cast<float*>(c.workspace.data);
  const BnVectors v(memory, channels);
  const T* x = c.in[0].as<T>();
  const BnGradient<T> g{c.dout[0].as<T>(), pool ? c.dout[1].as<float>() : nullptr,
                        static_cast<int>(pixels / s[0])};
  const float* inv_std = c.saved[1].as<float>();
  GM_LAUNCH(bn_saved_kernel, bn_vector_blocks(channels), 128, 0, c.ctx.stream, c.saved[0].as<float>(),
            inv_std, c.in[1].as<float>(), A == Act::none ? nullptr : c.in[2].as<float>(), v,
            static_cast<int>(channels));
  if (!frozen || c.din[1] || c.din[2])
    bn_launch_sums<T, A>(x, g, pixels, channels, memory + 8 * channels,
                         {.v = v,
                          .inv_std = inv_std,
                          .dgamma = c.din[1] ? c.din[1].view.as<float>() : nullptr,
                          .dbeta = c.din[2] ? c.din[2].view.as<float>() : nullptr,
                          .add_gamma = c.din[1].mode == GradMode::accumulate,
                          .add_beta = c.din[2].mode == GradMode::accumulate,
                          .frozen = frozen,
                          .pixels = static_cast<double>(pixels)},
                         c.ctx);
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
