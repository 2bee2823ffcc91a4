// Forward and backward of batch_norm and batch_norm_act on the CPU; they differ in the activation only.
#pragma once
#include "kernels/batch_norm/batch_norm.h"
#include "kernels/batch_norm/bn_chunks_cpu.h"
#include "kernels/common/parallel.h"

namespace gm::GM_CPU_NS {

/// The numbers and vectors of a forward pass, wherever gamma stands among the inputs.
inline BnForward bn_forward_of(const OpCall& c, int gamma, int saved_mean) {
  const BatchNormAttrs a(c.attrs);
  return {.gamma = c.in[gamma].as<float>(),
          .beta = c.in[gamma + 1].as<float>(),
          .eps = a.eps,
          .momentum = a.momentum,
          .unbiased = a.unbiased,
          .running_mean = c.state[0].as<float>(),
          .running_var = c.state[1].as<float>(),
          .mean = c.saved[saved_mean].as<float>(),
          .inv_std = c.saved[saved_mean + 1].as<float>()};
}

/// Applies BN and activation to all chunks. pooled: null, or (N, C) means over each image's rows; chunks then
/// hold whole images.
template <Act A, class T>
void bn_apply_all(ThreadPool& pool, const T* x, T* y, float* pooled, const BnChunks& chunks, int64_t channels,
                  BnCoefficients k) {
  pool.run(chunks.count, [&](int64_t i, int) {
    const int64_t rows = chunks.rows_per_unit, size = rows * channels;
    if (!pooled)
      return bn_apply<A>(x + chunks.begin(i) * size, y + chunks.begin(i) * size, chunks.rows(i), channels, k);
    for (int64_t n = chunks.begin(i); n < chunks.begin(i + 1); ++n) {
      float* mean = pooled + n * channels;
      std::fill_n(mean, channels, 0.f);
      bn_apply<A>(x + n * size, y + n * size, rows, channels, k, mean);
      for (int64_t j = 0; j < channels; ++j) mean[j] /= static_cast<float>(rows);
    }
  });
}

/// Calls f(first row, rows, gradient source) for the pieces of chunk i: one, or its images when they have
/// gradients of a pooled output.
template <class T, class F>
void bn_for_gradients(const T* dy, const float* dpool, const BnChunks& chunks, int64_t i, int64_t channels,
                      F&& f) {
  const int64_t rows = chunks.rows_per_unit;
  if (!dpool)
    return f(chunks.begin(i) * rows, chunks.rows(i),
             BnGradient<T>{dy ? dy + chunks.begin(i) * rows * channels : nullptr});
  for (int64_t n = chunks.begin(i); n < chunks.begin(i + 1); ++n)
    f(n * rows, rows,
      BnGradient<T>{dy ? dy + n * rows * channels : nullptr, dpool + n * channels,
                    1.f / static_cast<float>(rows)});
}

template <Act A, class T>
void bn_op_forward(const OpCall& c, bool pooled) {
  const BnChunks chunks = bn_chunks_of(c.in[0].spec, pooled);
  const int64_t channels = c.in[0].shape().channels(), size = chunks.rows_per_unit * channels;
  const T* x = c.in[0].as<T>();
  double* partial = static_cast<double*>(c.workspace.data);
  const BnCoefficients k(reinterpret_cast<float*>(partial + chunks.count * 2 * channels), channels);
  const BnForward f = bn_forward_of(c, 1, 0);
  if (BatchNormAttrs(c.attrs).training) {
    c.ctx.pool->run(chunks.count, [&](int64_t i, int) {
      bn_statistics(x + chunks.begin(i) * size, chunks.rows(i), channels, partial + i * 2 * channels);
    });
    bn_finish_statistics(
        partial, chunks.count, [&](int64_t i) { return chunks.rows(i); }, channels, f, k);
  } else {
    bn_running_coefficients(f, channels, k);
  }
  bn_apply_all<A>(*c.ctx.pool, x, c.out[0].as<T>(), pooled ? c.out[1].as<float>() : nullptr, chunks, channels,
                  k);
}

template <Act A, class T>
void bn_op_backward(const OpCall& c, bool pooled) {
  const bool frozen = !BatchNormAttrs(c.attrs).training;
  const BnChunks chunks = bn_chunks_of(c.in[0].spec, pooled);
  const int64_t channels = c.in[0].shape().channels();
  const T *x = c.in[0].as<T>(), *dy = c.dout[0].as<T>();
  const float *dpool = pooled ? c.dout[1].as<float>() : nullptr, *inv_std = c.saved[1].as<float>();
  double* partial = static_cast<double*>(c.workspace.data);
  const BnCoefficients k(reinterpret_cast<float*>(partial + chunks.count * 2 * channels), channels);
  bn_coefficients(c.saved[0].as<float>(), inv_std, c.in[1].as<float>(),
                  A == Act::none ? nullptr : c.in[2].as<float>(), channels, k);
  if (!frozen || c.din[1] || c.din[2]) {
    c.ctx.pool->run(chunks.count, [&](int64_t i, int) {
      double* sums = partial + i * 2 * channels;
      std::fill_n(sums, 2 * channels, 0.);
      bn_for_gradients(dy, dpool, chunks, i, channels,
                       [&](int64_t row, int64_t rows, const BnGradient<T>& g) {
                         bn_backward_sums<A>(x + row * channels, g, rows, channels, k, sums);
                       });
    });
    bn_finish_backward(partial, chunks.count, c.in[0].shape().pixels(), channels, inv_std, frozen, c.din[1],
                       c.din[2], k);
  }
  if (!c.din[0]) return;
  T* dx = c.din[0].view.as<T>();
  const bool accumulate = c.din[0].mode == GradMode::accumulate;
  c.ctx.pool->run(chunks.count, [&](int64_t i, int) {
    bn_for_gradients(dy, dpool, chunks, i, channels, [&](int64_t row, int64_t rows, const BnGradient<T>& g) {
      bn_backward_apply<A>(x + row * channels, g, dx + row * channels, rows, channels, k, accumulate);
    });
  });
}

}  // namespace gm::GM_CPU_NS
