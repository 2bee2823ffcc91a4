// The loops over a chunk's pixels, forward and backward: lanes are channels.
#include "kernels/batch_norm/bn_chunks_cpu.h"

#include <algorithm>
#include <cmath>

#include "kernels/common/dispatch.h"
#include "kernels/common/vec_cpu.h"

namespace gm::GM_CPU_NS {

namespace {

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

// Calls body(part, row, first channel, channels) for every register of the chunk, row after row as they lie
// in memory; for_strips, which sums go by, takes all rows of a strip before the next.
template <class Body>
GM_VEC_INLINE void for_vectors(int64_t rows, int64_t channels, Body body) {
  const int64_t full = channels / kLanes * kLanes;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t c = 0; c < full; c += kLanes) body(std::false_type{}, row, c, kLanes);
    if (full < channels) body(std::true_type{}, row, full, static_cast<int>(channels - full));
  }
}

}  // namespace

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

namespace {

template <Act A, class T>
void apply(const T* x, T* y, int64_t rows, int64_t channels, BnCoefficients k, float* pool, const T* residual,
           float factor) {
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
  for_vectors(rows, channels, body);
}

template <bool Part, Act A, class T>
GM_VEC_INLINE VecF bn_dz(const BnGradient<T>& g, int64_t at, int64_t c, int count, VecF centred, VecF scale,
                         VecF beta) {
  VecF d = splat(0.f);
  if (g.dy) d = load_n<Part>(g.dy + at, count) * g.factor;
  if (g.dpool) d += load_n<Part>(g.dpool + c, count) * g.dpool_scale;
  if constexpr (A == Act::none) return d;
  return d * act_slope<A>(centred * scale + beta);
}

template <Act A, class T>
void sums(const T* x, const BnGradient<T>& g, int64_t rows, int64_t channels, BnCoefficients k,
          double* partial) {
  if (!g.dy && !g.dpool) return;  // a dropped image adds nothing
  const int64_t block = bn_block_rows(channels, sizeof(T));
  for (int64_t row = 0; row < rows; row += block) {
    const int64_t n = std::min(block, rows - row);
    for_strips<2>(channels, [&](auto v_, auto part, int64_t c0, int count) {
      constexpr int V = decltype(v_)::value, R = V == 1 ? 2 : 1;
      constexpr bool Part = decltype(part)::value;
      VecF s[R][V] = {}, q[R][V] = {}, mean[V], scale[V], beta[V];
      auto for_each = [&](auto&& f) GM_VEC_LAMBDA {
        if constexpr (V == 2) f(std::false_type{}, 0, kLanes);
        f(part, V - 1, count);
      };
      for_each([&](auto p, int v, int m) GM_VEC_LAMBDA {
        constexpr bool P = decltype(p)::value;
        mean[v] = load_n<P>(k.mean + c0 + v * kLanes, m);
        scale[v] = load_n<P>(k.scale + c0 + v * kLanes, m);
        beta[v] = load_n<P>(k.beta + c0 + v * kLanes, m);
      });
      auto add = [&](int r, int64_t at_row) GM_VEC_LAMBDA {
        for_each([&](auto p, int v, int m) GM_VEC_LAMBDA {
          constexpr bool P = decltype(p)::value;
          const int64_t c = c0 + v * kLanes, at = at_row * channels + c;
          // A strip walks memory in strides no hardware prefetcher follows far: ask for the next block's
          // lines.
          __builtin_prefetch(x + at + block * channels, 0, 2);
          if (g.dy) __builtin_prefetch(g.dy + at + block * channels, 0, 2);
          const VecF centred = load_n<P>(x + at, m) - mean[v];
          const VecF dz = bn_dz<P, A>(g, at, c, m, centred, scale[v], beta[v]);
          s[r][v] += dz;
          q[r][v] += dz * centred;
        });
      };
      int64_t i = 0;
      for (; i + R <= n; i += R)
#pragma GCC unroll 2
        for (int r = 0; r < R; ++r) add(r, row + i + r);
      for (; i < n; ++i) add(0, row + i);
      bn_fold(s, Part, count, partial + c0);
      bn_fold(q, Part, count, partial + channels + c0);
    });
  }
}

// `g` by value: behind a reference, every store to dx could change its numbers.
template <Act A, class T, class Out>
void apply_backward(const T* x, BnGradient<T> g, Out* dx, int64_t rows, int64_t channels, BnCoefficients k,
                    bool accumulate) {
  auto body = [&](auto part, int64_t row, int64_t c, int count) GM_VEC_LAMBDA {
    constexpr bool Part = decltype(part)::value;
    const int64_t at = row * channels + c;
    const VecF scale = load_n<Part>(k.scale + c, count);
    const VecF centred = load_n<Part>(x + at, count) - load_n<Part>(k.mean + c, count);
    const VecF dz = bn_dz<Part, A>(g, at, c, count, centred, scale, load_n<Part>(k.beta + c, count));
    VecF d = scale * dz - load_n<Part>(k.c + c, count) - load_n<Part>(k.q + c, count) * centred;
    if (accumulate) d += load_n<Part>(dx + at, count);
    store_n<Part>(dx + at, d, count);
  };
  for_vectors(rows, channels, body);
}

}  // namespace

template <class T>
void bn_apply(Act act, const T* x, T* y, int64_t rows, int64_t channels, BnCoefficients k, float* pool,
              const T* residual, float factor) {
  act_switch(act, [&](auto a) { apply<a.value>(x, y, rows, channels, k, pool, residual, factor); });
}
template <class T>
void bn_backward_sums(Act act, const T* x, const BnGradient<T>& g, int64_t rows, int64_t channels,
                      BnCoefficients k, double* partial) {
  act_switch(act, [&](auto a) { sums<a.value>(x, g, rows, channels, k, partial); });
}
template <class T, class Out>
void bn_backward_apply(Act act, const T* x, const BnGradient<T>& g, Out* dx, int64_t rows, int64_t channels,
                       BnCoefficients k, bool accumulate) {
  act_switch(act, [&](auto a) { apply_backward<a.value>(x, g, dx, rows, channels, k, accumulate); });
}

void bn_coefficients(const float* mean, const float* inv_std, const float* gamma, const float* beta,
                     int64_t channels, BnCoefficients k) {
  for (int64_t i = 0; i < channels; ++i) {
    k.mean[i] = mean[i];
    k.scale[i] = gamma[i] * inv_std[i];
    k.beta[i] = beta ? beta[i] : 0.f;
    k.c[i] = k.q[i] = 0.f;
  }
}

void bn_running_coefficients(const BnForward& f, int64_t channels, BnCoefficients k) {
  for (int64_t i = 0; i < channels; ++i) {
    const float inv = static_cast<float>(1 / std::sqrt(static_cast<double>(f.running_var[i]) + f.eps));
    k.mean[i] = f.running_mean[i];
    k.scale[i] = f.gamma[i] * inv;
    k.beta[i] = f.beta[i];
    if (f.mean) f.mean[i] = f.running_mean[i];
    if (f.inv_std) f.inv_std[i] = inv;
  }
}

void bn_finish_statistics(const double* partial, int64_t chunks,
                          const std::function<int64_t(int64_t)>& rows_of, int64_t channels,
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

void bn_finish_backward(const double* partial, int64_t chunks, int64_t rows, int64_t channels,
                        const float* inv_std, bool frozen, const GradView& dgamma, const GradView& dbeta,
                        BnCoefficients k) {
  constexpr int64_t kBlock = 64;
  float *dg = dgamma ? dgamma.view.as<float>() : nullptr, *db = dbeta ? dbeta.view.as<float>() : nullptr;
  for (int64_t c0 = 0; c0 < channels; c0 += kBlock) {
    const int64_t n = std::min(kBlock, channels - c0);
    double sum[kBlock] = {}, product[kBlock] = {};
    for (int64_t i = 0; i < chunks; ++i) {
      const double* p = partial + i * 2 * channels + c0;
      for (int64_t j = 0; j < n; ++j) sum[j] += p[j], product[j] += p[channels + j];
    }
    for (int64_t j = 0; j < n; ++j) {
      const int64_t c = c0 + j;
      const double inv = inv_std[c], scale = k.scale[c];
      if (dg) dg[c] = float(product[j] * inv) + (dgamma.mode == GradMode::accumulate ? dg[c] : 0.f);
      if (db) db[c] = float(sum[j]) + (dbeta.mode == GradMode::accumulate ? db[c] : 0.f);
      k.c[c] = frozen ? 0.f : static_cast<float>(scale * sum[j] / rows);
      k.q[c] = frozen ? 0.f : static_cast<float>(scale * inv * inv * product[j] / rows);
    }
  }
}

template void bn_statistics(const float*, int64_t, int64_t, double*);
template void bn_statistics(const bf16*, int64_t, int64_t, double*);
template void bn_apply(Act, const float*, float*, int64_t, int64_t, BnCoefficients, float*, const float*,
                       float);
template void bn_apply(Act, const bf16*, bf16*, int64_t, int64_t, BnCoefficients, float*, const bf16*, float);
template void bn_backward_sums(Act, const float*, const BnGradient<float>&, int64_t, int64_t, BnCoefficients,
                               double*);
template void bn_backward_sums(Act, const bf16*, const BnGradient<bf16>&, int64_t, int64_t, BnCoefficients,
                               double*);
template void bn_backward_apply(Act, const float*, const BnGradient<float>&, float*, int64_t, int64_t,
                                BnCoefficients, bool);
template void bn_backward_apply(Act, const bf16*, const BnGradient<bf16>&, bf16*, int64_t, int64_t,
                                BnCoefficients, bool);
template void bn_backward_apply(Act, const bf16*, const BnGradient<bf16>&, float*, int64_t, int64_t,
                                BnCoefficients, bool);

}  // namespace gm::GM_CPU_NS
