// Depthwise convolution forward, with or without batch-norm statistics of its output: fast and generic
// kernels, then their launcher. How they work: depthwise_plan.cuh.
#pragma once
#include "kernels/batch_norm/bn_forward.cuh"
#include "kernels/common/act_any.cuh"
#include "kernels/depthwise_conv2d/depthwise_plan.cuh"

namespace gm::GM_BACKEND_NS {

/// BN statistics of the output as stored, about a pivot every block forms alike: the output at the middle of
/// the first image.
template <int N>
struct DwStatistics {
  float pivot[N], sum[N] = {}, square[N] = {};
  template <class T>
  __device__ __forceinline__ void start(const T* x, const T* w, const DwPlan& d, int c, float* store) {
    const int ih0 = d.out_height / 2 * d.stride - d.pad_top, iw0 = d.out_width / 2 * d.stride - d.pad_left;
    for (int i = 0; i < N; ++i) {
      pivot[i] = 0.f;
      for (int r = 0; r < d.kernel; ++r)
        for (int s = 0; s < d.kernel; ++s)
          if (ih0 + r >= 0 && ih0 + r < d.height && iw0 + s >= 0 && iw0 + s < d.width)
            pivot[i] += to_float(x[(int64_t{ih0 + r} * d.width + iw0 + s) * d.channels + c + i]) *
                        to_float(w[(r * d.kernel + s) * d.channels + c + i]);
      if (store) store[c + i] = pivot[i];
    }
  }
  __device__ __forceinline__ void add(int i, float y) {
    const float v = y - pivot[i];
    sum[i] += v;
    square[i] += v * v;
  }
};

template <class T, int K, int S, bool Stats>
__global__ __launch_bounds__(kDwThreads) void dw_forward_kernel(const T* x, const T* w, const float* bias,
                                                                T* y, DwPlan d, Act act, float* partial,
                                                                BnFinish finish) {
  constexpr int TW = kDwTile, N = kDwLanes, IW = (TW - 1) * S + K;
  const int column = threadIdx.x % d.columns, lane = threadIdx.x / d.columns, lanes = blockDim.x / d.columns;
  const int first = blockIdx.y * d.columns * N, c = first + column * N;
  DwStatistics<N> st;
  if (c < d.channels) {
    float wr[K * K][N], b[N] = {};
#pragma unroll
    for (int k = 0; k < K * K; ++k) load_lanes<T, N>(w + k * d.channels + c, wr[k]);
    if (bias) load_lanes<float, N>(bias + c, b);
    if constexpr (Stats) st.start(x, w, d, c, blockIdx.x == 0 && lane == 0 ? finish.v.pivot : nullptr);
    for (int item = blockIdx.x * lanes + lane; item < d.items; item += gridDim.x * lanes) {
      const int ow0 = item % d.strips * TW, band = item / d.strips % d.bands, n = item / d.strips / d.bands;
      const int h0 = band * d.band_rows, h1 = min(h0 + d.band_rows, d.out_height), iw0 = ow0 * S - d.pad_left;
      const T* image = x + int64_t{n} * d.height * d.width * d.channels + c;
      T* out = y + int64_t{n} * d.out_height * d.out_width * d.channels + c;
      float window[K][IW][N];
      auto load_row = [&](float(&row)[IW][N], int ih) {
        const bool inside = ih >= 0 && ih < d.height;
#pragma unroll
        for (int j = 0; j < IW; ++j) {
          if (inside && iw0 + j >= 0 && iw0 + j < d.width)
            load_lanes<T, N>(image + (ih * d.width + iw0 + j) * d.channels, row[j]);
          else {
#pragma unroll
            for (int i = 0; i < N; ++i) row[j][i] = 0.f;
          }
        }
      };
#pragma unroll
      for (int r = 0; r < K - S; ++r) load_row(window[r], h0 * S - d.pad_top + r);
      for (int h = h0; h < h1; h += K)
#pragma unroll
        for (int u = 0; u < K; ++u)
          if (h + u < h1) {
            const int oh = h + u;
#pragma unroll
            for (int r = K - S; r < K; ++r) load_row(window[(S * u + r) % K], oh * S - d.pad_top + r);
#pragma unroll
            for (int t = 0; t < TW; ++t) {
              float acc[N];
#pragma unroll
              for (int i = 0; i < N; ++i) {
                acc[i] = b[i];
#pragma unroll
                for (int r = 0; r < K; ++r)
#pragma unroll
                  for (int s = 0; s < K; ++s)
                    acc[i] += window[(S * u + r) % K][t * S + s][i] * wr[r * K + s][i];
                if (act != Act::none) acc[i] = act_value_any(act, acc[i]);
              }
              if (ow0 + t < d.out_width) {
                store_lanes<T, N>(out + (oh * d.out_width + ow0 + t) * d.channels, acc);
                if constexpr (Stats) {
#pragma unroll
                  for (int i = 0; i < N; ++i) st.add(i, to_float(from_float<T>(acc[i])));
                }
              }
            }
          }
    }
  }
  if constexpr (Stats) bn_reduce<N>(st.sum, st.square, d.columns, lanes, first, d.channels, partial, finish);
}

/// Any kernel and channel count: one output pixel and N channels at a time.
template <class T, int N, bool Stats>
__global__ __launch_bounds__(kDwThreads, 2) void dw_forward_any_kernel(const T* x, const T* w,
                                                                       const float* bias, T* y, DwPlan d,
                                                                       Act act, float* partial,
                                                                       BnFinish finish) {
  const int column = threadIdx.x % d.columns, lane = threadIdx.x / d.columns, lanes = blockDim.x / d.columns;
  const int first = blockIdx.y * d.columns * N, c = first + column * N;
  DwStatistics<N> st;
  if (c < d.channels) {
    if constexpr (Stats) st.start(x, w, d, c, blockIdx.x == 0 && lane == 0 ? finish.v.pivot : nullptr);
    const int64_t pixels = int64_t{d.images} * d.out_height * d.out_width;
    for (int64_t p = int64_t{blockIdx.x} * lanes + lane; p < pixels; p += int64_t{gridDim.x} * lanes) {
      const int ow = p % d.out_width, oh = p / d.out_width % d.out_height;
      const int64_t n = p / d.out_width / d.out_height;
      float acc[N] = {};
      if (bias) load_lanes<float, N>(bias + c, acc);
      for (int r = 0; r < d.kernel; ++r)
        for (int s = 0; s < d.kernel; ++s) {
          const int ih = oh * d.stride + r - d.pad_top, iw = ow * d.stride + s - d.pad_left;
          if (ih < 0 || iw < 0 || ih >= d.height || iw >= d.width) continue;
          float v[N], k[N];
          load_lanes<T, N>(x + ((n * d.height + ih) * d.width + iw) * d.channels + c, v);
          load_lanes<T, N>(w + (r * d.kernel + s) * d.channels + c, k);
#pragma unroll
          for (int i = 0; i < N; ++i) acc[i] += v[i] * k[i];
        }
#pragma unroll
      for (int i = 0; i < N; ++i) acc[i] = act_value_any(act, acc[i]);
      store_lanes<T, N>(y + p * d.channels + c, acc);
      if constexpr (Stats) {
#pragma unroll
        for (int i = 0; i < N; ++i) st.add(i, to_float(from_float<T>(acc[i])));
      }
    }
  }
  if constexpr (Stats) bn_reduce<N>(st.sum, st.square, d.columns, lanes, first, d.channels, partial, finish);
}

/// y = act(conv + bias); Stats: also BN statistics of y (finish, partial), at most kBnGpuBlocks partials.
template <class T, bool Stats>
void dw_launch_forward(const T* x, const T* w, const float* bias, T* y, const DepthwiseShape& d, Act act,
                       float* partial, const BnFinish& finish, const Context& ctx) {
  const DepthwiseSlices sl(d.channels);
  const DwPlan plan(d, sl.columns, int(d.out_height), int(d.out_width));
  GM_CHECK(sl.slices <= kBnSlices, "depthwise: too many channels");
  const int64_t most = std::max<int64_t>(1, std::min<int64_t>(kBnGpuBlocks, 1024 / sl.slices));
  auto grid = [&](int64_t work) {
    return dim3(static_cast<unsigned>(std::clamp<int64_t>((work + sl.rows - 1) / sl.rows, 1, most)),
                static_cast<unsigned>(sl.slices));
  };
  const unsigned threads = static_cast<unsigned>(sl.columns * sl.rows);
  const bool fast = dw_fast(d, [&](auto k, auto s) {
    GM_LAUNCH((dw_forward_kernel<T, k.value, s.value, Stats>), grid(plan.items), threads, 0, ctx.stream, x, w,
              bias, y, plan, act, partial, finish);
  });
  if (fast) return;
  const int64_t pixels = d.images * d.out_height * d.out_width;
  if (sl.lanes == 1)
    GM_LAUNCH((dw_forward_any_kernel<T, 1, Stats>), grid(pixels), threads, 0, ctx.stream, x, w, bias, y, plan,
              act, partial, finish);
  else
    GM_LAUNCH((dw_forward_any_kernel<T, kDwLanes, Stats>), grid(pixels), threads, 0, ctx.stream, x, w, bias,
              y, plan, act, partial, finish);
}

/// How every op begins that normalises a depthwise convolution (in: x, w, gamma, beta; saved[1]: mean): yc,
/// and the coefficients of its batch norm, of this batch or the running ones. Workspace: vectors, then BN
/// partials.
template <class T>
BnVectors dw_launch_normalised(const OpCall& c, const DepthwiseShape& d, T* yc) {
  float* memory = static_cast<float*>(c.workspace.data);
  const BnVectors v(memory, d.channels);
  const BnFinish finish = bn_finish_of(c, 2, 1, v, d.output().pixels());
  const T *x = c.in[0].as<T>(), *w = c.in[1].as<T>();
  if (BatchNormAttrs(c.attrs).training) {
    dw_launch_forward<T, true>(x, w, nullptr, yc, d, Act::none, memory + 8 * d.channels, finish, c.ctx);
  } else {
    dw_launch_forward<T, false>(x, w, nullptr, yc, d, Act::none, nullptr, finish, c.ctx);
    GM_LAUNCH(bn_running_kernel, bn_vector_blocks(d.channels), 128, 0, c.ctx.stream, finish,
              static_cast<int>(d.channels));
  }
  return v;
}

}  // namespace gm::GM_BACKEND_NS
