// Batch norm on the GPU: what the kernels of every op with a BN inside share (bn_forward.cu,
// bn_backward.cu).
//
// Mapping of all of them: a thread owns N neighbouring channels (16 bytes when C allows, else one) and walks
// down pixels; `columns` such threads side by side form a slice of the channels, the rows of a block work on
// different pixels. `columns` divides C / N where it can, so that no lane idles. Per-channel numbers stay in
// registers. Several rows are loaded before the first is used, without a branch between the loads, and the
// next ones meanwhile: latency is hidden by bytes in flight, not by occupancy alone. Sums over pixels:
// bn_reduce.cuh.
//
// Passes that sum walk from the last pixel to the first, passes that write from the first to the last: a
// cache smaller than the tensor then holds, when a pass begins, what that pass reads first. The kernel before
// the sums wrote the last pixels last, and the sums end with the first ones.
//
// Braces round a loop with #pragma unroll under `if constexpr` are not style: nvcc 13.0 drops the statement
// that follows a discarded branch of that form without them.
#pragma once
#include "kernels/activation/activation.h"
#include "kernels/batch_norm/batch_norm.h"
#include "kernels/batch_norm/bn_workspace.h"
#include "kernels/common/act.cuh"
#include "kernels/common/card_limits.h"
#include "kernels/common/ceil_div.h"
#include "kernels/dropout/dropout.h"

namespace gm::GM_BACKEND_NS {

constexpr int kBnThreads = 256;  // of a block, at most
constexpr int kBnSlices = 1024;

/// N neighbouring elements as they lie in memory: loaded now, unpacked when they are used, so that a row in
/// flight takes 4 registers.
template <class T, int N>
using BnRaw = std::conditional_t<N == 1, T, Vec<T, N>>;
template <class T, int N>
__device__ __forceinline__ BnRaw<T, N> bn_load(const T* p) {
  if constexpr (N == 1) {
    return *p;
  } else {
    return Vec<T, N>::load(p);
  }
}
template <class Raw, int N>
__device__ __forceinline__ void bn_unpack(const Raw& raw, float (&f)[N]) {
  if constexpr (N == 1) {
    f[0] = to_float(raw);
  } else {
    raw.to_float(f);
  }
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
/// What lies behind them (bn_gpu_workspace): the blocks' partial sums.
inline float* bn_gpu_partials(float* memory, int64_t channels) { return memory + kBnGpuVectors * channels; }

/// z = (x - mean) * scale + beta of N channels. bf16 is folded to scale * x + shift: what that loses of a
/// large mean, 2^-24 of it, is far below the rounding of x.
template <class T, int N>
struct BnAffine {
  static constexpr bool kFolded = sizeof(T) == 2;
  float mean[kFolded ? 1 : N], scale[N], shift[N];

  BnAffine() = default;  // to be assigned before use
  __device__ __forceinline__ BnAffine(const BnVectors& k, int c) {
    float m[N];
    load_lanes<float, N>(k.mean + c, m);
    load_lanes<float, N>(k.scale + c, scale);
    load_lanes<float, N>(k.beta + c, shift);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if constexpr (kFolded) {
        shift[i] -= m[i] * scale[i];
      } else {
        mean[i] = m[i];
      }
    }
  }
  __device__ __forceinline__ float operator()(int i, float x) const {
    if constexpr (kFolded) {
      return x * scale[i] + shift[i];
    } else {
      return (x - mean[i]) * scale[i] + shift[i];
    }
  }
};

/// How rows and channels are dealt to blocks.
struct BnGrid {
  int columns, rows;  // threads of a block: columns x rows
  int slices;
  /// whole_rows: slices as wide as a block, what a pass that writes wants: slices share the sectors at their
  /// borders, which are then read twice and written in parts.
  BnGrid(int64_t pixels, int64_t channels, int lanes, bool whole_rows = false) {
    const int64_t vectors = channels / lanes, widest = ceil_div(vectors, kBnThreads);
    columns = whole_rows ? static_cast<int>(ceil_div(vectors, widest)) : bn_columns(vectors);
    rows = kBnThreads / columns;
    slices = static_cast<int>(ceil_div(vectors, columns));
    GM_CHECK(pixels < (int64_t{1} << 31), "batch norm: too many pixels");
    GM_CHECK(slices <= kBnSlices, "batch norm: too many channels");
  }
  /// Grid of a pass that forms sums: no more blocks than are resident at once, two on a multiprocessor, as
  /// every block leaves partial sums that one block must read.
  dim3 summing_grid(int64_t pixels, const Context& ctx) const {
    const int64_t most = 2 * summing_multiprocessors(ctx) / slices;
    return dim3(static_cast<unsigned>(blocks_of(pixels, std::clamp<int64_t>(most, 1, kBnGpuBlocks))),
                static_cast<unsigned>(slices));
  }
  dim3 block() const { return dim3(static_cast<unsigned>(columns), static_cast<unsigned>(rows)); }
  /// Grid of a pass without sums, by `kernel`: as many blocks as a card holds at once. More of them, which
  /// start when others end, would each walk down the whole tensor once more.
  template <class Kernel>
  dim3 filling_grid(int64_t pixels, const Context& ctx, Kernel kernel) const {
    const int64_t card = int64_t{resident_blocks(kernel, columns * rows)} * multiprocessors(ctx);
    return dim3(static_cast<unsigned>(blocks_of(pixels, std::max<int64_t>(1, card / slices))),
                static_cast<unsigned>(slices));
  }

 private:
  int blocks_of(int64_t pixels, int64_t most) const {
    // Four rows a thread or more.
    return static_cast<int>(std::clamp<int64_t>(pixels / (int64_t{rows} * 4), 1, most));
  }
  /// Threads side by side, 4 to 16: the number that leaves the fewest lanes idle, in the last slice and in
  /// the last warp of a block, with a leaning towards 8 (128 bytes) and even numbers (whole sectors).
  static int bn_columns(int64_t vectors) {
    int best = static_cast<int>(std::min<int64_t>(vectors, 4));
    double least = 1e30;
    for (int k = best; k <= 16 && k <= vectors; ++k) {
      const int used = kBnThreads / k * k;
      const double lanes = static_cast<double>(round_up(vectors, k)) * kBnThreads / used;
      const double cost = lanes / static_cast<double>(vectors) + 0.01 * std::abs(k - 8) + 0.05 * (k % 2);
      if (cost < least) best = k, least = cost;
    }
    return best;
  }
};

/// Where a thread stands in a block of BnGrid.
struct BnPlace {
  int first, c;          // first channel of the slice and of the thread; c >= channels: past the last
  unsigned bytes;        // of a row of the tensor
  unsigned start, step;  // pixels of the thread, all blocks dealing them together
  __device__ __forceinline__ BnPlace(int lanes, int channels, size_t element)
      : first(static_cast<int>(blockIdx.y * blockDim.x) * lanes),
        c(first + static_cast<int>(threadIdx.x) * lanes),
        bytes(static_cast<unsigned>(channels * element)),
        start(blockIdx.x * blockDim.y + threadIdx.y),
        step(gridDim.x * blockDim.y) {}
  /// p + row * channels in one instruction.
  template <class T>
  __device__ __forceinline__ T* row(T* p, unsigned row) const {
    using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
    return reinterpret_cast<T*>(reinterpret_cast<Byte*>(p) + uint64_t{row} * bytes);
  }
};

/// Deals the pixels first, first + step, ... in batches of R rows, with the loads of the next batch in flight
/// while one is used: load(row, held) fills what is held of a row, use(held, row) takes it. begin() is called
/// once, when the first loads are on their way: what is loaded there, coefficients, arrives with them and not
/// ahead of them. In the last batch rows past the end are loaded as its first one and not used.
template <class Held, int R, class Load, class Begin, class Use>
__device__ __forceinline__ void bn_stream(unsigned first, unsigned step, unsigned pixels, Load load,
                                          Begin begin, Use use) {
  if (first >= pixels) return;
  Held held[2][R];
  auto fetch = [&](unsigned r, int k) {
#pragma unroll
    for (int u = 0; u < R; ++u) load(r + u * step < pixels ? r + u * step : r, held[k][u]);
  };
  fetch(first, 0);
  begin();
  for (unsigned r = first; r < pixels;) {
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const unsigned next = r + R * step;
      if (next < pixels) fetch(next, k ^ 1);
#pragma unroll
      for (int u = 0; u < R; ++u)
        if (r + u * step < pixels) use(held[k][u], r + u * step);
      r = next;
      if (r >= pixels) break;
    }
  }
}

/// Everything the last block of a slice needs to turn sums into statistics.
struct BnFinish {
  BnVectors v;
  const float *gamma, *beta;
  float eps, momentum;
  double per_pixel, per_kept;  // 1 / pixels, and what the squares of the running variance are divided by
  float *running_mean, *running_var, *mean, *inv_std;

  /// What a channel is finished with, to be loaded ahead of its sums.
  struct Held {
    float mean, var, pivot, gamma, beta;
  };
  __device__ __forceinline__ Held load(int c) const {
    return {running_mean[c], running_var[c], v.pivot[c], gamma[c], beta[c]};
  }
};
__device__ __forceinline__ void bn_finish_channel(const BnFinish& f, const BnFinish::Held& held, int c,
                                                  double sum, double square) {
  const double old_mean = held.mean, old_var = held.var, pivot = held.pivot;
  const double shift = sum * f.per_pixel, m2 = fmax(square - sum * shift, 0.0);
  const double mean = pivot + shift;
  // 1 / sqrt(v) in f32 and a step of Newton's: root and quotient in f64 are a hundred instructions, of a unit
  // that GeForce cards have little of.
  const double v = m2 * f.per_pixel + f.eps, near = 1.f / sqrtf(static_cast<float>(v)),
               inv = near * (1.5 - 0.5 * v * near * near);
  f.running_mean[c] = static_cast<float>(f.momentum * old_mean + (1.0 - f.momentum) * mean);
  f.running_var[c] = static_cast<float>(f.momentum * old_var + (1.0 - f.momentum) * m2 * f.per_kept);
  if (f.mean) f.mean[c] = static_cast<float>(mean);
  if (f.inv_std) f.inv_std[c] = static_cast<float>(inv);
  f.v.mean[c] = static_cast<float>(mean);
  f.v.scale[c] = static_cast<float>(held.gamma * inv);
  f.v.beta[c] = held.beta;
}

/// The same for the backward sums: dz and dz (x - mean).
struct BnFinishBackward {
  BnVectors v;  // c and q are written
  const float* inv_std;
  float *dgamma, *dbeta;  // null: not wanted
  bool add_gamma, add_beta, frozen;
  double pixels;
  const float *mean = nullptr, *gamma = nullptr, *beta = nullptr;  // saved by forward, and parameters

  /// Coefficients of N channels from c on; beta is read only where an activation needs it.
  template <int N, bool kBeta>
  __device__ __forceinline__ void load(int c, float (&m)[N], float (&scale)[N], float (&b)[N]) const {
    float inv[N];
    load_lanes<float, N>(mean + c, m);
    load_lanes<float, N>(gamma + c, scale);
    load_lanes<float, N>(inv_std + c, inv);
    if constexpr (kBeta) load_lanes<float, N>(beta + c, b);
#pragma unroll
    for (int i = 0; i < N; ++i) scale[i] *= inv[i];
  }
  /// As BnFinish::load.
  struct Held {
    float inv, gamma, old_gamma, old_beta;
  };
  __device__ __forceinline__ Held load(int c) const {
    return {inv_std ? inv_std[c] : 0.f, frozen ? 0.f : gamma[c], add_gamma ? dgamma[c] : 0.f,
            add_beta ? dbeta[c] : 0.f};
  }
};
__device__ __forceinline__ void bn_finish_channel(const BnFinishBackward& f,
                                                  const BnFinishBackward::Held& held, int c, double sum,
                                                  double product) {
  const float inv = held.inv, scale = held.gamma * inv;
  if (f.dgamma) f.dgamma[c] = static_cast<float>(product * inv) + held.old_gamma;
  if (f.dbeta) f.dbeta[c] = static_cast<float>(sum) + held.old_beta;
  if (f.frozen) return;
  const double share = scale / f.pixels;
  f.v.c[c] = static_cast<float>(share * sum);
  f.v.q[c] = static_cast<float>(share * inv * inv * product);
}

/// Stochastic depth: the factor of every image, drawn once, by forward's kernel that finds the coefficients,
/// and kept for backward.
struct BnDraw {
  DropPath drop;
  float* factor = nullptr;  // null: none are drawn
  int images = 0;

  /// The share of thread `t` of `threads`.
  __device__ __forceinline__ void operator()(unsigned t, unsigned threads) const {
    if (!factor) return;
    for (unsigned n = t; n < static_cast<unsigned>(images); n += threads) factor[n] = drop.factor(n);
  }
};
/// The image a pixel is of, without a division: n * multiplier >> shift is n / d for all n < 2^31.
struct BnImages {
  unsigned multiplier = 1u << 31, shift = 31;
  BnImages() = default;
  explicit BnImages(int d) {  // pixels of an image
    unsigned l = 0;
    while ((int64_t{1} << l) < d) ++l;
    shift = 31 + l;
    multiplier = static_cast<unsigned>(ceil_div(uint64_t{1} << shift, d));
  }
  __device__ __forceinline__ unsigned of(unsigned pixel) const {
    return static_cast<unsigned>(uint64_t{pixel} * multiplier >> shift);
  }
};

// ---- launchers ----

/// Calls f with the number of channels a thread owns: as many as 16 bytes hold, or one.
template <class T, class F>
void bn_lanes(int64_t channels, F&& f) {
  if (channels % kVecLanes<T> == 0) return f(std::integral_constant<int, kVecLanes<T>>{});
  return f(std::integral_constant<int, 1>{});
}
inline BnFinish bn_finish_of(const OpCall& c, int gamma, int saved_mean, BnVectors v, int64_t pixels) {
  const BatchNormAttrs a(c.attrs);
  const double n = static_cast<double>(pixels);
  return {.v = v,
          .gamma = c.in[gamma].as<float>(),
          .beta = c.in[gamma + 1].as<float>(),
          .eps = a.eps,
          .momentum = a.momentum,
          .per_pixel = 1 / n,
          .per_kept = a.unbiased && pixels > 1 ? 1 / (n - 1) : 1 / n,
          .running_mean = c.state[0].as<float>(),
          .running_var = c.state[1].as<float>(),
          .mean = c.saved[saved_mean].as<float>(),
          .inv_std = c.saved[saved_mean + 1].as<float>()};
}
/// The same of a backward call; forward saved mean and inv_std as the last two before `gamma`'s number.
inline BnFinishBackward bn_finish_backward_of(const OpCall& c, int gamma, BnVectors v, int64_t pixels) {
  const GradView &dgamma = c.din[gamma], &dbeta = c.din[gamma + 1];
  return {.v = v,
          .inv_std = c.saved[gamma].as<float>(),
          .dgamma = dgamma ? dgamma.view.as<float>() : nullptr,
          .dbeta = dbeta ? dbeta.view.as<float>() : nullptr,
          .add_gamma = dgamma && dgamma.mode == GradMode::accumulate,
          .add_beta = dbeta && dbeta.mode == GradMode::accumulate,
          .frozen = !BatchNormAttrs(c.attrs).training,
          .pixels = static_cast<double>(pixels),
          .mean = c.saved[gamma - 1].as<float>(),
          .gamma = c.in[gamma].as<float>(),
          .beta = c.in[gamma + 1].as<float>()};
}
inline unsigned bn_vector_blocks(int64_t channels) { return static_cast<unsigned>(ceil_div(channels, 128)); }

/// What a forward call draws: into saved[2] or, where nothing is kept, the workspace behind
/// `bn_gpu_workspace`.
inline BnDraw bn_draw_of(const OpCall& c, const Shape& shape) {
  const DropPath drop(c.attrs, c.ctx.step);
  if (drop.p.rate <= 0) return {};
  float* const scratch = static_cast<float*>(c.workspace.data);
  return {.drop = drop,
          .factor = c.saved[2] ? c.saved[2].as<float>()
                               : scratch + bn_gpu_workspace(shape.channels()) / sizeof(float),
          .images = static_cast<int>(shape[0])};
}

}  // namespace gm::GM_BACKEND_NS
