// Batch normalisation on chunks: building blocks of every CPU op that contains a BN.
//
// A chunk is `rows` pixels x C channels, contiguous (NHWC), small enough to stay in L2 between the step that
// produced it (a convolution, say) and these functions. A fused op walks its chunks twice:
//   forward   1. produce chunk i of x;  bn_statistics(chunk, partial i)
//                bn_finish_statistics over all partials -> mean, inv_std, running update, coefficients
//             2. bn_apply(chunk): y = act(z),  z = (x - mean) * scale + beta,  scale = gamma * inv_std
//   backward (bn_backward_cpu.h)
//             1. bn_backward_sums(chunk, partial i):  dz = (dy + dpool * dpool_scale) * act'(z)
//                bn_finish_backward over all partials -> dgamma, dbeta, coefficients c and q
//             2. bn_backward_apply(chunk): dx = scale * dz - c - q * (x - mean)
// Chunk borders (bn_workspace.h) must depend on shapes only (never on threads): partials are combined in
// index order in f64, so results are the same bits for any number of threads. With a pooled output or
// stochastic depth each image of the chunk is one call, as every image has its own pooled row and factor.
//
// Accuracy: sums run in f32 about a pivot over at most a few hundred rows, then go to f64. x - mean is taken
// before scaling, so that a channel with |mean| >> std keeps its digits.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/activation/activation.h"
#include "kernels/batch_norm/bn_workspace.h"
#include "kernels/common/dtype.h"
#include "kernels/common/op.h"
#include "kernels/common/vec_cpu.h"

namespace gm::GM_CPU_NS {

/// Per-channel numbers of the apply steps, in one block of memory (bn_cpu_workspace), filled by the bn_finish
/// functions or bn_coefficients.
struct BnCoefficients {
  float *mean, *scale, *beta;  // z = (x - mean) * scale + beta
  float *c, *q;                // backward: dx = scale * dz - c - q * (x - mean)

  BnCoefficients(float* memory, int64_t channels)
      : mean(memory),
        scale(memory + channels),
        beta(memory + 2 * channels),
        c(memory + 3 * channels),
        q(memory + 4 * channels) {}
};

/// Doubles of one chunk's partial result: (mean, M2) forward, (sum dz, sum dz (x - mean)) backward.
inline int64_t bn_partial_doubles(int64_t channels) { return 2 * channels; }

// Rows summed in f32 before going to f64; the block is also what stays in L1 while strips of channels pass
// over it.
inline int64_t bn_block_rows(int64_t channels, size_t element) {
  return std::clamp<int64_t>((24 << 10) / static_cast<int64_t>(channels * element), 16, 256);
}

// Adds the lanes of R x V f32 registers to doubles.
template <int R, int V>
inline void bn_fold(const VecF (&sum)[R][V], bool part, int count, double* out) {
  for (int v = 0; v < V; ++v) {
    VecF total = sum[0][v];
    for (int r = 1; r < R; ++r) total += sum[r][v];
    float lanes[kLanes];
    store(lanes, total);
    const int n = part && v == V - 1 ? count : kLanes;
    for (int i = 0; i < n; ++i) out[v * kLanes + i] += lanes[i];
  }
}

/// Statistics of one chunk: partial[0..C) = mean, partial[C..2C) = sum (x - mean)^2. One pass over x.
template <class T>
void bn_statistics(const T* x, int64_t rows, int64_t channels, double* partial) {
  double *sum = partial, *square = partial + channels;
  std::fill_n(partial, 2 * channels, 0.);
  const int64_t block = bn_block_rows(channels, sizeof(T));
  // The pivot is the mean of eight pixels spread over the chunk: near enough to the mean that
  // sum (x - pivot)^2 loses no digits, and recomputed per strip rather than stored.
  const int64_t probes = std::min<int64_t>(8, rows);
  for (int64_t row = 0; row < rows; row += block) {
    const int64_t n = std::min(block, rows - row);
    for_strips<4>(channels, [&](auto v_, auto part, int64_t c0, int count) {
      constexpr int V = decltype(v_)::value, R = V == 1 ? 4 : V == 2 ? 2 : 1;
      constexpr bool Part = decltype(part)::value;
      VecF pivot[V] = {}, s[R][V] = {}, q[R][V] = {};
      for (int64_t k = 0; k < probes; ++k)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v)
          pivot[v] += Part && v == V - 1
                          ? load_part(x + (rows * k / probes) * channels + c0 + v * kLanes, count)
                          : load(x + (rows * k / probes) * channels + c0 + v * kLanes);
      for (int v = 0; v < V; ++v) pivot[v] *= 1.f / probes;
      const T* p = x + row * channels + c0;
      auto add = [&](int r, const T* at) GM_VEC_LAMBDA {
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
          const VecF t =
              (Part && v == V - 1 ? load_part(at + v * kLanes, count) : load(at + v * kLanes)) - pivot[v];
          s[r][v] += t;
          q[r][v] += t * t;
        }
      };
      int64_t i = 0;
      for (; i + R <= n; i += R)
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) add(r, p + (i + r) * channels);
      for (; i < n; ++i) add(0, p + i * channels);
      bn_fold(s, Part, count, sum + c0);
      bn_fold(q, Part, count, square + c0);
      if (row + n == rows)
        for (int v = 0; v < V; ++v) {
          float lanes[kLanes];
          store(lanes, pivot[v]);
          const int last = Part && v == V - 1 ? count : kLanes;
          for (int k = 0; k < last; ++k) {
            double& m = sum[c0 + v * kLanes + k];
            double& m2 = square[c0 + v * kLanes + k];
            m2 = std::max(0., m2 - m * m / rows);
            m = lanes[k] + m / rows;
          }
        }
    });
  }
}

/// What the statistics become. Null pointers are skipped.
struct BnForward {
  const float *gamma, *beta;
  float eps, momentum;  // running = momentum * running + (1 - momentum) * batch
  bool unbiased;        // the running variance gets n / (n - 1) (PyTorch); else the biased one (Keras 3)
  float *running_mean, *running_var;
  float *mean, *inv_std;  // saved for backward
};

/// Coefficients of z from a mean and an inv_std per channel (frozen BN, inference, backward).
inline void bn_coefficients(const float* mean, const float* inv_std, const float* gamma, const float* beta,
                            int64_t channels, BnCoefficients k) {
  for (int64_t i = 0; i < channels; ++i) {
    k.mean[i] = mean[i];
    k.scale[i] = gamma[i] * inv_std[i];
    k.beta[i] = beta ? beta[i] : 0.f;
    k.c[i] = k.q[i] = 0.f;
  }
}
/// Inference and frozen BN: coefficients from the running statistics; fills f.mean and f.inv_std if wanted.
inline void bn_running_coefficients(const BnForward& f, int64_t channels, BnCoefficients k) {
  for (int64_t i = 0; i < channels; ++i) {
    const float inv = static_cast<float>(1 / std::sqrt(static_cast<double>(f.running_var[i]) + f.eps));
    k.mean[i] = f.running_mean[i];
    k.scale[i] = f.gamma[i] * inv;
    k.beta[i] = f.beta[i];
    if (f.mean) f.mean[i] = f.running_mean[i];
    if (f.inv_std) f.inv_std[i] = inv;
  }
}
/// Combines the partials of all chunks (Chan, in index order): rows_of(i) = rows of chunk i.
template <class RowsOf>
void bn_finish_statistics(const double* partial, int64_t chunks, RowsOf&& rows_of, int64_t channels,
                          const BnForward& f, BnCoefficients k) {
  double total = 0;
  for (int64_t i = 0; i < chunks; ++i) total += static_cast<double>(rows_of(i));
  constexpr int64_t kBlock = 64;
  for (int64_t c0 = 0; c0 < channels; c0 += kBlock) {
    const int64_t n = std::min(kBlock, channels - c0);
    double mean[kBlock] = {}, m2[kBlock] = {};
    for (int64_t i = 0; i < chunks; ++i) {
      const double* p = partial + i * 2 * channels + c0;
      const double share = rows_of(i) / total;
      for (int64_t j = 0; j < n; ++j) mean[j] += share * p[j];
    }
    for (int64_t i = 0; i < chunks; ++i) {
      const double* p = partial + i * 2 * channels + c0;
      const double rows = static_cast<double>(rows_of(i));
      for (int64_t j = 0; j < n; ++j) {
        const double d = p[j] - mean[j];
        m2[j] += p[channels + j] + rows * d * d;
      }
    }
    for (int64_t j = 0; j < n; ++j) {
      const int64_t c = c0 + j;
      const double variance = m2[j] / total, inv = 1 / std::sqrt(variance + f.eps);
      const double kept = f.unbiased && total > 1 ? m2[j] / (total - 1) : variance;
      if (f.running_mean)
        f.running_mean[c] = float(f.momentum * f.running_mean[c] + (1. - f.momentum) * mean[j]);
      if (f.running_var) f.running_var[c] = float(f.momentum * f.running_var[c] + (1. - f.momentum) * kept);
      if (f.mean) f.mean[c] = static_cast<float>(mean[j]);
      if (f.inv_std) f.inv_std[c] = static_cast<float>(inv);
      k.mean[c] = static_cast<float>(mean[j]);
      k.scale[c] = static_cast<float>(f.gamma[c] * inv);
      k.beta[c] = f.beta[c];
    }
  }
}

/// y = act(z) on a chunk (y may be x). pool: null, or C sums to which the values of this chunk are added.
/// residual: null, or y = act(z) * factor + residual.
template <Act A, class T>
void bn_apply(const T* x, T* y, int64_t rows, int64_t channels, BnCoefficients k, float* pool = nullptr,
              const T* residual = nullptr, float factor = 1) {
  auto body = [&](auto part, int64_t row, int64_t c, int count) GM_VEC_LAMBDA {
    constexpr bool Part = decltype(part)::value;
    const int64_t at = row * channels + c;
    const VecF z =
        (load_n<Part>(x + at, count) - load_n<Part>(k.mean + c, count)) * load_n<Part>(k.scale + c, count) +
        load_n<Part>(k.beta + c, count);
    VecF a = act_value<A>(z) * factor;
    if (residual) a += load_n<Part>(residual + at, count);
    store_n<Part>(y + at, a, count);
    if (pool) store_n<Part>(pool + c, load_n<Part>(pool + c, count) + a, count);
  };
  const int64_t full = channels / kLanes * kLanes;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t c = 0; c < full; c += kLanes) body(std::false_type{}, row, c, kLanes);
    if (full < channels) body(std::true_type{}, row, full, static_cast<int>(channels - full));
  }
}

}  // namespace gm::GM_CPU_NS
