// Batch norm on the GPU: what the kernels of every op with a BN inside share (bn_forward.cuh,
// bn_backward.cuh).
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
#include "kernels/dropout/dropout.h"

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
    GM_CHECK(pixels < (int64_t{1} << 32), "batch norm: too many pixels");
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

// Stochastic depth: the factor of every image, drawn once a call rather than at every pixel. One thread per
// image.
static __global__ void bn_factors_kernel(DropPath drop, float* factor, int images) {
  const int n = blockIdx.x * blockDim.x + threadIdx.x;
  if (n < images) factor[n] = drop.factor(n);
}
/// The image a pixel is of. 32 bits: a 64-bit division would cost more than the rest of a pixel's work.
__device__ __forceinline__ unsigned bn_image(int64_t pixel, int image_pixels) {
  return static_cast<unsigned>(pixel) / static_cast<unsigned>(image_pixels);
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
/// The same of a backward call; inv_std: saved by forward.
inline BnFinishBackward bn_finish_backward_of(const OpCall& c, int gamma, const float* inv_std, BnVectors v,
                                              int64_t pixels) {
  const GradView &dgamma = c.din[gamma], &dbeta = c.din[gamma + 1];
  return {.v = v,
          .inv_std = inv_std,
          .dgamma = dgamma ? dgamma.view.as<float>() : nullptr,
          .dbeta = dbeta ? dbeta.view.as<float>() : nullptr,
          .add_gamma = dgamma.mode == GradMode::accumulate,
          .add_beta = dbeta.mode == GradMode::accumulate,
          .frozen = !BatchNormAttrs(c.attrs).training,
          .pixels = static_cast<double>(pixels)};
}
inline unsigned bn_vector_blocks(int64_t channels) { return static_cast<unsigned>((channels + 127) / 128); }

/// The factors of stochastic depth, in the workspace behind `bn_gpu_workspace`; null when all are 1.
inline const float* bn_launch_factors(const OpCall& c, const Shape& shape) {
  const DropPath drop(c.attrs, c.ctx.step);
  if (!drop) return nullptr;
  float* factor = static_cast<float*>(c.workspace.data) + bn_gpu_workspace(shape.channels()) / sizeof(float);
  GM_LAUNCH(bn_factors_kernel, bn_vector_blocks(shape[0]), 128, 0, c.ctx.stream, drop, factor,
            static_cast<int>(shape[0]));
  return factor;
}

}  // namespace gm::GM_BACKEND_NS
