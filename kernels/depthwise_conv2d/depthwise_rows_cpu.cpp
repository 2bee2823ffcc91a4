// The inner loops of depthwise convolution. Lanes are channels, registers are neighbouring output columns:
// each loaded pixel serves up to `kernel` outputs, and the partial sums of a block never leave registers.
// Borders: only blocks that touch one test their columns; rows outside are skipped.
#include "kernels/depthwise_conv2d/depthwise_rows_cpu.h"

#include <algorithm>

#include "kernels/common/vec_cpu.h"

namespace gm::GM_CPU_NS {

namespace {

constexpr int kDwColumns = 4;  // output columns of a block; with two registers of channels 8 sums in flight

// The first `registers` of a strip are full, the last may hold `count` channels only.
template <int V, bool Part, class T>
inline VecF dw_load(const T* p, int v, int count) {
  if constexpr (Part)
    if (v == V - 1) return load_part(p + v * kLanes, count);
  return load(p + v * kLanes);
}
template <int V, bool Part>
inline void dw_store(float* p, int v, int count, VecF x) {
  if constexpr (Part)
    if (v == V - 1) return store_part(p + v * kLanes, x, count);
  store(p + v * kLanes, x);
}

// Calls f(s, column) for the taps of a row that bring pixel j of a block to an output column of it.
template <int K, int S, class F>
GM_VEC_INLINE void dw_taps(int j, F f) {
#pragma GCC unroll 7
  for (int s = 0; s < K; ++s)
    if ((j - s) % S == 0 && j - s >= 0 && (j - s) / S < kDwColumns) f(s, (j - s) / S);
}

// Four output columns from ow0 on, V registers of channels from c0 on.
template <int K, int S, int V, bool Part, class T>
inline void dw_block(const T* x, const float* w, const DepthwiseShape& d, int64_t oh, int64_t ow0, int64_t c0,
                     int count, float* row) {
  constexpr int kIn = (kDwColumns - 1) * S + K;
  const int64_t channels = d.channels, iw0 = ow0 * S - d.pad_left, ih0 = oh * S - d.pad_top;
  VecF acc[V][kDwColumns] = {};
  auto rows = [&](auto edge) {
    const int first = static_cast<int>(std::max<int64_t>(0, -ih0));
    const int last = static_cast<int>(std::min<int64_t>(K, d.height - ih0));
    for (int r = first; r < last; ++r) {
      const T* p = x + ((ih0 + r) * d.width + iw0) * channels + c0;
      const float* wr = w + r * K * channels + c0;
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) {
        VecF tap[K];
#pragma GCC unroll 7
        for (int s = 0; s < K; ++s) tap[s] = dw_load<V, Part>(wr + s * channels, v, count);
#pragma GCC unroll 16
        for (int j = 0; j < kIn; ++j) {
          if (edge.value && (iw0 + j < 0 || iw0 + j >= d.width)) continue;
          const VecF pixel = dw_load<V, Part>(p + j * channels, v, count);
          dw_taps<K, S>(j, [&](int s, int column) GM_VEC_LAMBDA { acc[v][column] += pixel * tap[s]; });
        }
      }
    }
  };
  if (iw0 >= 0 && iw0 + kIn <= d.width)
    rows(std::false_type{});
  else
    rows(std::true_type{});
#pragma GCC unroll 4
  for (int t = 0; t < kDwColumns; ++t)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) dw_store<V, Part>(row + (ow0 + t) * channels + c0, v, count, acc[v][t]);
}

template <int K, int S, class T>
void dw_row_blocks(const T* x, const float* w, const DepthwiseShape& d, int64_t oh, float* row) {
  for_strips<2>(d.channels, [&](auto v, auto part, int64_t c0, int count) {
    // A last block that would overhang is moved left and repeats a few columns.
    for (int64_t ow = 0; ow < d.out_width; ow += kDwColumns)
      dw_block<K, S, decltype(v)::value, decltype(part)::value>(
          x, w, d, oh, std::min<int64_t>(ow, d.out_width - kDwColumns), c0, count, row);
  });
}

// Any kernel and width: one output at a time.
template <class T>
void dw_row_any(const T* x, const float* w, const DepthwiseShape& d, int64_t oh, float* row) {
  const int64_t ih0 = oh * d.stride - d.pad_top;
  for_strips<1>(d.channels, [&](auto, auto part, int64_t c0, int count) {
    constexpr bool Part = decltype(part)::value;
    for (int64_t ow = 0; ow < d.out_width; ++ow) {
      const int64_t iw0 = ow * d.stride - d.pad_left;
      VecF acc = splat(0.f);
      for (int r = 0; r < d.kernel; ++r)
        for (int s = 0; s < d.kernel; ++s)
          if (ih0 + r >= 0 && ih0 + r < d.height && iw0 + s >= 0 && iw0 + s < d.width)
            acc += load_n<Part>(x + ((ih0 + r) * d.width + iw0 + s) * d.channels + c0, count) *
                   load_n<Part>(w + (r * d.kernel + s) * d.channels + c0, count);
      store_n<Part>(row + ow * d.channels + c0, acc, count);
    }
  });
}

// Calls f(K, S) with the kernel and stride as constants when there is a fast path, else returns false.
template <class F>
inline bool dw_fast(const DepthwiseShape& d, F&& f) {
  auto stride = [&](auto k) {
    if (d.stride == 1)
      f(k, std::integral_constant<int, 1>{});
    else
      f(k, std::integral_constant<int, 2>{});
    return true;
  };
  if (d.stride > 2) return false;
  if (d.kernel == 3) return stride(std::integral_constant<int, 3>{});
  if (d.kernel == 5) return stride(std::integral_constant<int, 5>{});
  if (d.kernel == 7) return stride(std::integral_constant<int, 7>{});
  return false;
}

}  // namespace

template <class T>
void dw_forward_row(const T* x, const float* w, const DepthwiseShape& d, int64_t oh, float* row) {
  if (d.out_width < kDwColumns ||
      !dw_fast(d, [&](auto k, auto s) { dw_row_blocks<k.value, s.value>(x, w, d, oh, row); }))
    dw_row_any(x, w, d, oh, row);
}

template <class T>
void dw_weights(const T* w, const DepthwiseShape& d, bool turned, float* out) {
  for (int tap = 0; tap < d.taps(); ++tap)
    for (int64_t c = 0; c < d.channels; ++c)
      out[tap * d.channels + c] = to_float(w[(turned ? d.taps() - 1 - tap : tap) * d.channels + c]);
}

namespace {

// At stride 1 the input gradient is a convolution of dy with the filter turned by 180 degrees.
inline DepthwiseShape dw_gradient_shape(DepthwiseShape d) {
  std::swap(d.height, d.out_height);
  std::swap(d.width, d.out_width);
  d.pad_top = d.kernel - 1 - d.pad_top;
  d.pad_left = d.kernel - 1 - d.pad_left;
  return d;
}

// Stride 2: with q = column + pad_left, even columns meet even taps, odd columns odd ones:
//   dx[q] = sum_{s = q mod 2, step 2} w[s] dy[(q - s) / 2].
// One block = eight columns, q0 .. q0 + 7 with q0 even.
template <int K, bool Part>
inline void dw_gradient2_block(const float* dy, const float* w, const DepthwiseShape& d, int64_t ih,
                               int64_t q0, int64_t c0, int count, float* row) {
  constexpr int kBack = (K - 1) / 2, kIn = kDwColumns + kBack;
  const int64_t channels = d.channels, ow0 = q0 / 2 - kBack;
  VecF acc[2][kDwColumns] = {};
  for (int r = static_cast<int>((ih + d.pad_top) % 2); r < K; r += 2) {
    const int64_t oh = (ih + d.pad_top - r) / 2;
    if (ih + d.pad_top < r || oh >= d.out_height) continue;
    const float *p = dy + (oh * d.out_width + ow0) * channels + c0, *wr = w + r * K * channels + c0;
    VecF tap[K];
#pragma GCC unroll 7
    for (int s = 0; s < K; ++s) tap[s] = load_n<Part>(wr + s * channels, count);
#pragma GCC unroll 8
    for (int j = 0; j < kIn; ++j) {
      if (ow0 + j < 0 || ow0 + j >= d.out_width) continue;
      const VecF g = load_n<Part>(p + j * channels, count);
#pragma GCC unroll 7
      for (int s = 0; s < K; ++s)
        if (const int t = j - kBack + s / 2; t >= 0 && t < kDwColumns) acc[s % 2][t] += g * tap[s];
    }
  }
  float* out = row + (q0 - d.pad_left) * channels + c0;
#pragma GCC unroll 8
  for (int t = 0; t < 2 * kDwColumns; ++t) {
    const int64_t column = q0 - d.pad_left + t;
    if (column >= 0 && column < d.width) store_n<Part>(out + t * channels, acc[t % 2][t / 2], count);
  }
}

inline void dw_gradient_row_any(const float* dy, const float* w, const DepthwiseShape& d, int64_t ih,
                                float* row) {
  for_strips<1>(d.channels, [&](auto, auto part, int64_t c0, int count) {
    constexpr bool Part = decltype(part)::value;
    for (int64_t iw = 0; iw < d.width; ++iw) {
      VecF acc = splat(0.f);
      for (int r = 0; r < d.kernel; ++r)
        for (int s = 0; s < d.kernel; ++s) {
          const int64_t h = ih + d.pad_top - r, v = iw + d.pad_left - s;
          if (h < 0 || v < 0 || h % d.stride || v % d.stride) continue;
          if (h / d.stride >= d.out_height || v / d.stride >= d.out_width) continue;
          acc += load_n<Part>(dy + (h / d.stride * d.out_width + v / d.stride) * d.channels + c0, count) *
                 load_n<Part>(w + (r * d.kernel + s) * d.channels + c0, count);
        }
      store_n<Part>(row + iw * d.channels + c0, acc, count);
    }
  });
}

}  // namespace

void dw_gradient_row(const float* dy, const float* w, const DepthwiseShape& d, int64_t ih, float* row) {
  if (d.stride == 1) return dw_forward_row(dy, w, dw_gradient_shape(d), ih, row);
  const bool fast = dw_fast(d, [&](auto k, auto) {
    for_strips<1>(d.channels, [&](auto, auto part, int64_t c0, int count) {
      for (int64_t q = d.pad_left / 2 * 2; q < d.pad_left + d.width; q += 2 * kDwColumns)
        dw_gradient2_block<k.value, decltype(part)::value>(dy, w, d, ih, q, c0, count, row);
    });
  });
  if (!fast) dw_gradient_row_any(dy, w, d, ih, row);
}

namespace {

// Tap rows held in registers at once by the weight gradient: all, when K*K sums and a block of dy fit.
constexpr int dw_tap_rows(int kernel) {
  return kernel * kernel + kDwColumns + 2 <= (kLanes == 16 ? 32 : 16) ? kernel : 1;
}

// Adds to dw rows r0 .. r0+G-1 of taps the products of output rows [oh0, oh1), one register of channels.
template <int K, int S, int G, bool Part, class T>
inline void dw_weight_strip(const T* x, const float* dy, const DepthwiseShape& d, int64_t oh0, int64_t oh1,
                            int r0, int64_t c0, int count, float* dw) {
  constexpr int kIn = (kDwColumns - 1) * S + K;
  const int64_t channels = d.channels;
  VecF acc[G][K];
#pragma GCC unroll 7
  for (int r = 0; r < G; ++r)
#pragma GCC unroll 7
    for (int s = 0; s < K; ++s) acc[r][s] = load_n<Part>(dw + ((r0 + r) * K + s) * channels + c0, count);
  for (int64_t oh = oh0; oh < oh1; ++oh) {
    const int64_t ih0 = oh * S - d.pad_top + r0;
    for (int64_t ow = 0; ow < d.out_width; ow += kDwColumns) {
      const int64_t iw0 = ow * S - d.pad_left;
      const float* g = dy + (oh * d.out_width + ow) * channels + c0;
      auto block = [&](auto edge) {
        VecF grad[kDwColumns];
#pragma GCC unroll 4
        for (int t = 0; t < kDwColumns; ++t)
          grad[t] = edge.value && ow + t >= d.out_width ? splat(0.f) : load_n<Part>(g + t * channels, count);
#pragma GCC unroll 7
        for (int r = 0; r < G; ++r) {
          if (ih0 + r < 0 || ih0 + r >= d.height) continue;
          const T* p = x + ((ih0 + r) * d.width + iw0) * channels + c0;
#pragma GCC unroll 16
          for (int j = 0; j < kIn; ++j) {
            if (edge.value && (iw0 + j < 0 || iw0 + j >= d.width)) continue;
            const VecF pixel = load_n<Part>(p + j * channels, count);
            dw_taps<K, S>(j, [&](int s, int column) GM_VEC_LAMBDA { acc[r][s] += pixel * grad[column]; });
          }
        }
      };
      if (iw0 >= 0 && iw0 + kIn <= d.width && ow + kDwColumns <= d.out_width)
        block(std::false_type{});
      else
        block(std::true_type{});
    }
  }
#pragma GCC unroll 7
  for (int r = 0; r < G; ++r)
#pragma GCC unroll 7
    for (int s = 0; s < K; ++s) store_n<Part>(dw + ((r0 + r) * K + s) * channels + c0, acc[r][s], count);
}

template <class T>
void dw_weight_rows_any(const T* x, const float* dy, const DepthwiseShape& d, int64_t oh0, int64_t oh1,
                        float* dw) {
  for_strips<1>(d.channels, [&](auto, auto part, int64_t c0, int count) {
    constexpr bool Part = decltype(part)::value;
    for (int r = 0; r < d.kernel; ++r)
      for (int s = 0; s < d.kernel; ++s) {
        float* out = dw + (r * d.kernel + s) * d.channels + c0;
        VecF acc = load_n<Part>(out, count);
        for (int64_t oh = oh0; oh < oh1; ++oh)
          for (int64_t ow = 0; ow < d.out_width; ++ow) {
            const int64_t ih = oh * d.stride + r - d.pad_top, iw = ow * d.stride + s - d.pad_left;
            if (ih < 0 || iw < 0 || ih >= d.height || iw >= d.width) continue;
            acc += load_n<Part>(x + (ih * d.width + iw) * d.channels + c0, count) *
                   load_n<Part>(dy + (oh * d.out_width + ow) * d.channels + c0, count);
          }
        store_n<Part>(out, acc, count);
      }
  });
}

}  // namespace

template <class T>
void dw_weight_gradient(const T* x, const float* dy, const DepthwiseShape& d, float* dw) {
  // Rows in bands that stay in L1 while the strips of channels pass over them.
  const int64_t row_bytes =
      (d.width * d.stride * static_cast<int64_t>(sizeof(T)) + d.out_width * 4) * d.channels;
  const int64_t band = std::clamp<int64_t>((32 << 10) / row_bytes, 1, d.out_height);
  for (int64_t oh = 0; oh < d.out_height; oh += band) {
    const int64_t end = std::min(d.out_height, oh + band);
    const bool fast = dw_fast(d, [&](auto k, auto s) {
      constexpr int K = decltype(k)::value, S = decltype(s)::value, G = dw_tap_rows(K);
      for_strips<1>(d.channels, [&](auto, auto part, int64_t c0, int count) {
        for (int r0 = 0; r0 < K; r0 += G)
          dw_weight_strip<K, S, G, decltype(part)::value>(x, dy, d, oh, end, r0, c0, count, dw);
      });
    });
    if (!fast) dw_weight_rows_any(x, dy, d, oh, end, dw);
  }
}

// T: float and bf16
template void dw_weights(const float*, const DepthwiseShape&, bool, float*);
template void dw_weights(const bf16*, const DepthwiseShape&, bool, float*);
template void dw_forward_row(const float*, const float*, const DepthwiseShape&, int64_t, float*);
template void dw_forward_row(const bf16*, const float*, const DepthwiseShape&, int64_t, float*);
template void dw_weight_gradient(const float*, const float*, const DepthwiseShape&, float*);
template void dw_weight_gradient(const bf16*, const float*, const DepthwiseShape&, float*);

}  // namespace gm::GM_CPU_NS
