// Forward and backward of batch_norm and batch_norm_act on the CPU, and what ops with a convolution before
// the BN need as well: passes over all chunks, with what differs from image to image.
#pragma once
#include <algorithm>
#include <cstring>

#include "kernels/batch_norm/batch_norm.h"
#include "kernels/batch_norm/bn_chunks_cpu.h"
#include "kernels/common/parallel.h"
#include "kernels/dropout/dropout.h"

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

/// Calls f(image, first pixel, pixels) for the part of every image among the pixels [begin, begin + count),
/// or f(0, begin, count) when images need not be told apart. `image`: pixels of one.
template <class F>
void bn_for_images(bool apart, int64_t image, int64_t begin, int64_t count, F&& f) {
  if (!apart) return f(0, begin, count);
  for (const int64_t end = begin + count; begin < end;) {
    const int64_t n = begin / image, next = std::min(end, (n + 1) * image);
    f(n, begin, next - begin);
    begin = next;
  }
}

/// The factors of stochastic depth that forward saves and backward reads; null with a rate of 0.
inline float* bn_kept_factors(const OpCall& c, size_t saved) {
  return c.attrs.get("rate", 0) > 0 ? c.saved[saved].as<float>() : nullptr;
}

/// What follows the activation: y = act(z) * factor of the image + residual.
template <class T>
struct BnTail {
  const T* residual = nullptr;  // null: none
  DropPath drop;
  int64_t image = 1;  // pixels of one

  BnTail() = default;
  /// `residual`: its place among the inputs, where it may be missing.
  BnTail(const OpCall& c, size_t residual, const Shape& y)
      : residual(c.in.size() > residual ? c.in[residual].as<T>() : nullptr),
        drop(c.attrs, c.ctx.step),
        image(y.pixels() / y[0]) {}
  /// Saves the factors for backward; kept: bn_kept_factors.
  void keep(float* kept, int64_t images) const {
    for (int64_t n = 0; kept && n < images; ++n) kept[n] = drop.factor(n);
  }
};

/// Applies BN, activation and tail to the pixels [begin, begin + count) of x and y.
template <class T>
void bn_apply_pixels(Act act, const T* x, T* y, int64_t begin, int64_t count, int64_t channels,
                     BnCoefficients k, const BnTail<T>& tail) {
  bn_for_images(bool(tail.drop), tail.image, begin, count, [&](int64_t image, int64_t row, int64_t rows) {
    const int64_t at = row * channels;
    const float factor = tail.drop.factor(image);
    if (factor == 0 && tail.residual)
      std::memmove(static_cast<void*>(y + at), tail.residual + at, rows * channels * sizeof(T));
    else
      bn_apply(act, x + at, y + at, rows, channels, k, static_cast<float*>(nullptr),
               tail.residual ? tail.residual + at : nullptr, factor);
  });
}

/// Applies BN, activation and tail to all chunks. pooled: null, or (N, C) means over each image's rows;
/// chunks then hold whole images, and there is no tail.
template <class T>
void bn_apply_all(Act act, ThreadPool& pool, const T* x, T* y, float* pooled, const BnChunks& chunks,
                  int64_t channels, BnCoefficients k, const BnTail<T>& tail = {}) {
  pool.run(chunks.count, [&](int64_t i, int) {
    const int64_t rows = chunks.rows_per_unit, size = rows * channels;
    if (!pooled) return bn_apply_pixels(act, x, y, chunks.begin(i) * rows, chunks.rows(i), channels, k, tail);
    for (int64_t n = chunks.begin(i); n < chunks.begin(i + 1); ++n) {
      float* mean = pooled + n * channels;
      std::fill_n(mean, channels, 0.f);
      bn_apply(act, x + n * size, y + n * size, rows, channels, k, mean);
      for (int64_t j = 0; j < channels; ++j) mean[j] /= static_cast<float>(rows);
    }
  });
}

/// The gradient of y over all pixels: of act's output, of a pooled output, through stochastic depth.
template <class T>
struct BnSource {
  const T* dy;              // null: 0
  const float* dpool;       // (N, C), null: none
  const float* factor;      // (N), null: 1
  int64_t image, channels;  // image: pixels of one

  /// factors: saved by forward; null: none.
  BnSource(const OpCall& c, bool pooled, const Shape& y, const float* factors = nullptr)
      : dy(c.dout[0].as<T>()),
        dpool(pooled ? c.dout[1].as<float>() : nullptr),
        factor(factors),
        image(y.pixels() / y[0]),
        channels(y.channels()) {}
  /// Calls f(first pixel, pixels, BnGradient) for the pieces of the pixels [begin, begin + count): one, or
  /// one for each image they touch when images differ.
  template <class F>
  void pieces(int64_t begin, int64_t count, F&& f) const {
    bn_for_images(dpool || factor, image, begin, count, [&](int64_t n, int64_t row, int64_t rows) {
      const float times = factor ? factor[n] : 1.f;
      f(row, rows,
        BnGradient<T>{dy && times != 0 ? dy + row * channels : nullptr,
                      dpool ? dpool + n * channels : nullptr, 1.f / static_cast<float>(image), times});
    });
  }
};

template <class T>
void bn_op_forward(const OpCall& c, Act act, bool pooled) {
  const Shape& shape = c.in[0].shape();
  const BnChunks chunks = bn_chunks_of(c.in[0].spec, pooled);
  const int64_t channels = shape.channels(), size = chunks.rows_per_unit * channels;
  const T* x = c.in[0].as<T>();
  double* partial = static_cast<double*>(c.workspace.data);
  const BnCoefficients k(reinterpret_cast<float*>(partial + chunks.count * 2 * channels), channels);
  const BnForward f = bn_forward_of(c, 1, 0);
  const BnTail<T> tail(c, 3, shape);
  tail.keep(bn_kept_factors(c, 2), shape[0]);
  if (BatchNormAttrs(c.attrs).training) {
    c.ctx.pool->run(chunks.count, [&](int64_t i, int) {
      bn_statistics(x + chunks.begin(i) * size, chunks.rows(i), channels, partial + i * 2 * channels);
    });
    bn_finish_statistics(
        partial, chunks.count, [&](int64_t i) { return chunks.rows(i); }, channels, f, k);
  } else {
    bn_running_coefficients(f, channels, k);
  }
  bn_apply_all(act, *c.ctx.pool, x, c.out[0].as<T>(), pooled ? c.out[1].as<float>() : nullptr, chunks,
               channels, k, tail);
}

template <class T>
void bn_op_backward(const OpCall& c, Act act, bool pooled) {
  const bool frozen = !BatchNormAttrs(c.attrs).training;
  const BnChunks chunks = bn_chunks_of(c.in[0].spec, pooled);
  const int64_t channels = c.in[0].shape().channels();
  const T* x = c.in[0].as<T>();
  const BnSource<T> source(c, pooled, c.in[0].shape(), bn_kept_factors(c, 2));
  const float* inv_std = c.saved[1].as<float>();
  double* partial = static_cast<double*>(c.workspace.data);
  const BnCoefficients k(reinterpret_cast<float*>(partial + chunks.count * 2 * channels), channels);
  bn_coefficients(c.saved[0].as<float>(), inv_std, c.in[1].as<float>(),
                  act == Act::none ? nullptr : c.in[2].as<float>(), channels, k);
  auto begin = [&](int64_t i) { return chunks.begin(i) * chunks.rows_per_unit; };
  if (!frozen || c.din[1] || c.din[2]) {
    c.ctx.pool->run(chunks.count, [&](int64_t i, int) {
      double* sums = partial + i * 2 * channels;
      std::fill_n(sums, 2 * channels, 0.);
      source.pieces(begin(i), chunks.rows(i), [&](int64_t row, int64_t rows, const BnGradient<T>& g) {
        bn_backward_sums(act, x + row * channels, g, rows, channels, k, sums);
      });
    });
    bn_finish_backward(partial, chunks.count, c.in[0].shape().pixels(), channels, inv_std, frozen, c.din[1],
                       c.din[2], k);
  }
  if (!c.din[0]) return;
  T* dx = c.din[0].view.as<T>();
  const bool accumulate = c.din[0].mode == GradMode::accumulate;
  c.ctx.pool->run(chunks.count, [&](int64_t i, int) {
    source.pieces(begin(i), chunks.rows(i), [&](int64_t row, int64_t rows, const BnGradient<T>& g) {
      bn_backward_apply(act, x + row * channels, g, dx + row * channels, rows, channels, k, accumulate);
    });
  });
}

}  // namespace gm::GM_CPU_NS
