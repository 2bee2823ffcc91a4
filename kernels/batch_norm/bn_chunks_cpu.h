// Batch normalisation on chunks: building blocks of every CPU op that contains a BN.
//
// A chunk is `rows` pixels x C channels, contiguous (NHWC), small enough to stay in L2 between the step that
// produced it (a convolution, say) and these functions. A fused op walks its chunks twice:
//   forward   1. produce chunk i of x;  bn_statistics(chunk, partial i)
//                bn_finish_statistics over all partials -> mean, inv_std, running update, coefficients
//             2. bn_apply(chunk): y = act(z),  z = (x - mean) * scale + beta,  scale = gamma * inv_std
//   backward
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
#include <cstdint>
#include <functional>

#include "kernels/activation/activation.h"
#include "kernels/batch_norm/bn_workspace.h"
#include "kernels/common/dtype.h"
#include "kernels/common/op.h"

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

/// Statistics of one chunk: partial[0..C) = mean, partial[C..2C) = sum (x - mean)^2. One pass over x.
template <class T>
void bn_statistics(const T* x, int64_t rows, int64_t channels, double* partial);

/// What the statistics become. Null pointers are skipped.
struct BnForward {
  const float *gamma, *beta;
  float eps, momentum;  // running = momentum * running + (1 - momentum) * batch
  bool unbiased;        // the running variance gets n / (n - 1) (PyTorch); else the biased one (Keras 3)
  float *running_mean, *running_var;
  float *mean, *inv_std;  // saved for backward
};

/// Coefficients of z from a mean and an inv_std per channel (frozen BN, inference, backward).
void bn_coefficients(const float* mean, const float* inv_std, const float* gamma, const float* beta,
                     int64_t channels, BnCoefficients k);
/// Inference and frozen BN: coefficients from the running statistics; fills f.mean and f.inv_std if wanted.
void bn_running_coefficients(const BnForward& f, int64_t channels, BnCoefficients k);
/// Combines the partials of all chunks (Chan, in index order): rows_of(i) = rows of chunk i.
void bn_finish_statistics(const double* partial, int64_t chunks,
                          const std::function<int64_t(int64_t)>& rows_of, int64_t channels,
                          const BnForward& f, BnCoefficients k);

/// y = act(z) on a chunk (y may be x). pool: null, or C sums to which the values of this chunk are added.
/// residual: null, or y = act(z) * factor + residual.
template <class T>
void bn_apply(Act act, const T* x, T* y, int64_t rows, int64_t channels, BnCoefficients k,
              float* pool = nullptr, const T* residual = nullptr, float factor = 1);

// ---- backward

/// Where the gradient of act's output comes from: dy per pixel (null = 0) times the image's factor of
/// stochastic depth and, with a pooled output, one row per image, dpool (null = 0) times dpool_scale = 1 / (H
/// W).
template <class T>
struct BnGradient {
  const T* dy = nullptr;
  const float* dpool = nullptr;
  float dpool_scale = 0, factor = 1;
};

/// Adds to partial[0..C) sum dz and to partial[C..2C) sum dz (x - mean); zero it before the first call.
template <class T>
void bn_backward_sums(Act act, const T* x, const BnGradient<T>& g, int64_t rows, int64_t channels,
                      BnCoefficients k, double* partial);

/// Combines the backward partials in index order; dgamma, dbeta (may be null views) as their modes ask;
/// fills c and q of the coefficients. rows = pixels of the whole batch; frozen: statistics were constants.
void bn_finish_backward(const double* partial, int64_t chunks, int64_t rows, int64_t channels,
                        const float* inv_std, bool frozen, const GradView& dgamma, const GradView& dbeta,
                        BnCoefficients k);

/// dx = scale * dz - c - q * (x - mean) on a chunk, to a buffer of f32 or T; added to it when accumulate.
template <class T, class Out>
void bn_backward_apply(Act act, const T* x, const BnGradient<T>& g, Out* dx, int64_t rows, int64_t channels,
                       BnCoefficients k, bool accumulate);

}  // namespace gm::GM_CPU_NS
