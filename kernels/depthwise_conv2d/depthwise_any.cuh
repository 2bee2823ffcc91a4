// Depthwise convolution of any kernel size and channel count, one pixel at a time: what no network of ours
// has, and so right rather than fast.
#pragma once
#include "kernels/depthwise_conv2d/depthwise_parts.cuh"

namespace gm::GM_BACKEND_NS {

/// Any kernel and channel count: one output pixel and N channels at a time.
template <class T, int N, bool Stats>
__global__ __launch_bounds__(kDwThreads, 2) void dw_forward_any_kernel(const T* x, const T* w,
                                                                       const float* bias, T* y, DwShape d,
                                                                       Act act, float* partial,
                                                                       BnFinish finish) {
  await_launch_before();
  const auto [column, lane, lanes, slice, first, c] = DwThread(d, N);
  DwStatistics<N> st;
  if (c < d.channels) {
    if constexpr (Stats)
      st.template start<0>(x, w, d, c, blockIdx.x == 0 && lane == 0 ? finish.v.pivot : nullptr);
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
      for (int i = 0; i < N; ++i) acc[i] = act_value_any<T>(act, acc[i]);
      store_rounded<T, N>(y + p * d.channels + c, acc);
      if constexpr (Stats) {
#pragma unroll
        for (int i = 0; i < N; ++i) st.add(i, acc[i]);
      }
    }
  }
  if constexpr (Stats) bn_reduce<N>(st.sum, st.square, d.columns, lanes, first, d.channels, partial, finish);
}

/// dx: one input pixel at a time; then dw tap by tap, re-reading x and dyc.
template <class T, int N>
__global__ __launch_bounds__(kDwThreads, 2) void dw_backward_any_kernel(const T* x, const T* w,
                                                                        DwIncoming<T> in, T* dx, bool add_dx,
                                                                        DwShape d, float* partial) {
  await_launch_before();
  const auto [column, lane, lanes, slice, first, c] = DwThread(d, N);
  GM_DYN_SHARED(float, shared);
  const int64_t start = int64_t{blockIdx.x} * lanes + lane, step = int64_t{gridDim.x} * lanes;
  const bool active = c < d.channels;
  float k[kDwCoefficients * N] = {};
  if (in.yc && active)
    for (int i = 0; i < N; ++i) dw_coefficients(in, c + i, k + i, N);
  auto gradient = [&](int64_t image, int64_t pixel, float(&g)[N]) {
    for (int i = 0; i < N; ++i) g[i] = 0.f;
    if (in.g.dy) load_lanes<T, N>(in.g.dy + pixel * d.channels + c, g);
    if (!in.yc) return;
    float v[N];
    load_lanes<T, N>(in.yc + pixel * d.channels + c, v);
    dw_through_norm<false, N>(in, static_cast<int>(image), d.channels, c, v, k, N, g);
  };
  if (dx && active)
    for (int64_t p = start; p < int64_t{d.images} * d.height * d.width; p += step) {
      const int iw = p % d.width, ih = p / d.width % d.height;
      const int64_t n = p / d.width / d.height;
      float sum[N] = {};
      if (add_dx) load_lanes<T, N>(dx + p * d.channels + c, sum);
      for (int r = 0; r < d.kernel; ++r)
        for (int s = 0; s < d.kernel; ++s) {
          const int h = ih + d.pad_top - r, v = iw + d.pad_left - s;
          if (h < 0 || v < 0 || h % d.stride || v % d.stride) continue;
          const int oh = h / d.stride, ow = v / d.stride;
          if (oh >= d.out_height || ow >= d.out_width) continue;
          float dyc[N], wr[N];
          gradient(n, (n * d.out_height + oh) * d.out_width + ow, dyc);
          load_lanes<T, N>(w + (r * d.kernel + s) * d.channels + c, wr);
#pragma unroll
          for (int i = 0; i < N; ++i) sum[i] += wr[i] * dyc[i];
        }
      store_lanes<T, N>(dx + p * d.channels + c, sum);
    }
  if (!partial) return;
  for (int tap = 0; tap < d.kernel * d.kernel; ++tap) {
    const int r = tap / d.kernel, s = tap % d.kernel;
    float sum[1][N] = {};
    if (active)
      for (int64_t p = start; p < int64_t{d.images} * d.out_height * d.out_width; p += step) {
        const int ow = p % d.out_width, oh = p / d.out_width % d.out_height;
        const int64_t n = p / d.out_width / d.out_height;
        const int ih = oh * d.stride + r - d.pad_top, iw = ow * d.stride + s - d.pad_left;
        if (ih < 0 || iw < 0 || ih >= d.height || iw >= d.width) continue;
        float dyc[N], pixel[N];
        gradient(n, p, dyc);
        load_lanes<T, N>(x + ((n * d.height + ih) * d.width + iw) * d.channels + c, pixel);
#pragma unroll
        for (int i = 0; i < N; ++i) sum[0][i] += pixel[i] * dyc[i];
      }
    dw_block_sums<1, N>(sum, tap, shared, d, partial);
  }
}

}  // namespace gm::GM_BACKEND_NS
