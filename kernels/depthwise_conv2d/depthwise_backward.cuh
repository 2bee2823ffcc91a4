// Depthwise convolution backward, of a plain one and through batch norm and activation: fast and generic
// kernels, then their launcher. How they work: depthwise_plan.cuh.
#pragma once
#include "kernels/batch_norm/bn_backward.cuh"
#include "kernels/depthwise_conv2d/depthwise_plan.cuh"

namespace gm::GM_BACKEND_NS {

/// What dyc is: dy itself (plain), or the backward of BN and SiLU, of BN and an activation of slope 1 between
/// two values and 0 outside (none, ReLU, ReLU6), or of BN and a sigmoid.
enum class DwSource : int { plain, silu, clamp, sigmoid };

/// The activation whose slope must be computed; piecewise linear ones are handled by two limits.
constexpr Act dw_smooth(DwSource source) {
  return source == DwSource::silu ? Act::silu : source == DwSource::sigmoid ? Act::sigmoid : Act::none;
}

/// dyc at a pixel of the output: loaded, or formed from (da, yc) by the backward of BN and activation.
template <class T, int N, DwSource Source>
struct DwGradient {
  BnGradient<T> g;
  const T* yc;
  float low, high;  // clamp: where the slope is 1
  float mean[N], scale[N], beta[N], shift[N], slope[N];

  __device__ __forceinline__ DwGradient(const BnGradient<T>& gradient, const T* conv, Act a,
                                        const BnVectors& k, int c)
      : g(gradient), yc(conv), low(a == Act::none ? -INFINITY : 0.f), high(a == Act::relu6 ? 6.f : INFINITY) {
    if constexpr (Source != DwSource::plain) {
      load_lanes<float, N>(k.mean + c, mean);
      load_lanes<float, N>(k.scale + c, scale);
      load_lanes<float, N>(k.beta + c, beta);
      load_lanes<float, N>(k.c + c, shift);
      load_lanes<float, N>(k.q + c, slope);
    }
  }
  __device__ __forceinline__ void at(int64_t pixel, int channels, int c, float (&d)[N]) const {
    if constexpr (Source == DwSource::plain) {
      load_lanes<T, N>(g.dy + pixel * channels + c, d);
    } else {
      float v[N], dz[N];
      load_lanes<T, N>(yc + pixel * channels + c, v);
#pragma unroll
      for (int i = 0; i < N; ++i) v[i] -= mean[i];
      bn_dz<T, N, dw_smooth(Source)>(g, pixel, channels, c, v, scale, beta, dz);
      if constexpr (Source == DwSource::clamp) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
          const float z = v[i] * scale[i] + beta[i];
          dz[i] = z > low && z < high ? dz[i] : 0.f;
        }
      }
#pragma unroll
      for (int i = 0; i < N; ++i) d[i] = scale[i] * dz[i] - shift[i] - slope[i] * v[i];
    }
  }
};

static __device__ unsigned dw_tickets[kBnSlices];

/// The block's sums of one tap: over its rows of threads, in order, into partial[block][tap][channel].
template <int N>
__device__ __forceinline__ void dw_block_tap(const float (&v)[N], int tap, const DwPlan& d, float* partial) {
  GM_SHARED(float, tile, [kDwThreads * N]);
  const int width = d.columns * N, first = blockIdx.y * width, rows = blockDim.x / d.columns;
#pragma unroll
  for (int i = 0; i < N; ++i) tile[threadIdx.x * N + i] = v[i];
  __syncthreads();
  for (int k = threadIdx.x; k < width && first + k < d.channels; k += blockDim.x) {
    float sum = 0.f;
    for (int r = 0; r < rows; ++r) sum += tile[r * width + k];
    partial[(int64_t{blockIdx.x} * d.kernel * d.kernel + tap) * d.channels + first + k] = sum;
  }
  __syncthreads();
}
/// The last block of a slice adds the partials of all blocks in index order. Every thread must call.
template <int N>
__device__ __forceinline__ void dw_finish(const DwPlan& d, const float* partial, float* dw, bool accumulate) {
  if (!last_block_done(&dw_tickets[blockIdx.y], gridDim.x)) return;
  const int width = d.columns * N, first = blockIdx.y * width, taps = d.kernel * d.kernel;
  for (int k = threadIdx.x; k < width * taps; k += blockDim.x) {
    const int tap = k / width, c = first + k % width;
    if (c >= d.channels) continue;
    double sum = 0;
    for (unsigned p = 0; p < gridDim.x; ++p) sum += partial[(int64_t{p} * taps + tap) * d.channels + c];
    float* out = dw + tap * d.channels + c;
    *out = static_cast<float>(sum) + (accumulate ? *out : 0.f);
  }
}

// 3x3 needs up to 168 registers, 5x5 about 240 (window, weights and sums): small blocks, three or two an SM.
constexpr int kDwBackwardThreads = 128;

/// dx and dw in one kernel: both use the same neighbourhood of dyc round an input pixel,
///   dx(pixel) = sum w * dyc,  dw += x(pixel) * dyc,
/// so only dyc has a halo and x needs none. With q = ih + pad_top, m = q / S and phase q mod S, tap row
/// r = S j + phase meets output row m - j: a thread owns TW values of m (S * TW columns) and marches down m
/// with a window of KB = (K - 1) / S + 1 rows of dyc. (dx null: not wanted; dw null: not wanted.)
template <class T, int K, int S, DwSource Source>
__global__ __launch_bounds__(kDwBackwardThreads,
                             K == 5   ? 2
                             : S == 1 ? 3
                                      : 4) void dw_backward_kernel(const T* x, const T* w, BnGradient<T> g,
                                                                   const T* yc, Act act, BnVectors k, T* dx,
                                                                   bool add_dx, float* dw, bool add_dw,
                                                                   DwPlan d, float* partial) {
  constexpr int TW = kDwTile, N = kDwLanes, KB = (K - 1) / S + 1, WW = TW + KB - 1;
  const int column = threadIdx.x % d.columns, lane = threadIdx.x / d.columns, lanes = blockDim.x / d.columns;
  const int c = (blockIdx.y * d.columns + column) * N;
  float sums[K * K][N] = {};
  if (c < d.channels) {
    float wr[K * K][N];
#pragma unroll
    for (int t = 0; t < K * K; ++t) load_lanes<T, N>(w + t * d.channels + c, wr[t]);
    const DwGradient<T, N, Source> gradient(g, yc, act, k, c);
    const int m_first = d.pad_top / S, m_last = (d.pad_top + d.height - 1) / S;
    for (int item = blockIdx.x * lanes + lane; item < d.items; item += gridDim.x * lanes) {
      const int band = item / d.strips % d.bands, n = item / d.strips / d.bands;
      const int mw0 = d.pad_left / S + item % d.strips * TW;
      const int m0 = m_first + band * d.band_rows, m1 = min(m0 + d.band_rows, m_last + 1);
      const int64_t out_image = int64_t{n} * d.out_height * d.out_width;
      const T* in = x + int64_t{n} * d.height * d.width * d.channels + c;
      float window[KB][WW][N];
      auto load_row = [&](float(&row)[WW][N], int oh) {
        const bool inside = oh >= 0 && oh < d.out_height;
#pragma unroll
        for (int j = 0; j < WW; ++j) {
          const int ow = mw0 - (KB - 1) + j;
          if (inside && ow >= 0 && ow < d.out_width)
            gradient.at(out_image + oh * d.out_width + ow, d.channels, c, row[j]);
          else {
#pragma unroll
            for (int i = 0; i < N; ++i) row[j][i] = 0.f;
          }
        }
      };
#pragma unroll
      for (int j = 1; j < KB; ++j) load_row(window[KB - j], m0 - j);
      for (int mb = m0; mb < m1; mb += KB)
#pragma unroll
        for (int u = 0; u < KB; ++u)
          if (mb + u < m1) {
            const int m = mb + u;
            load_row(window[u], m);
#pragma unroll
            for (int ph = 0; ph < S; ++ph) {
              const int ih = S * m + ph - d.pad_top;
              if (ih < 0 || ih >= d.height) continue;
#pragma unroll
              for (int t = 0; t < TW; ++t)
#pragma unroll
                for (int pw = 0; pw < S; ++pw) {
                  const int iw = S * (mw0 + t) + pw - d.pad_left;
                  if (iw < 0 || iw >= d.width) continue;
                  const int64_t at = (int64_t{ih} * d.width + iw) * d.channels;
                  float pixel[N], sum[N] = {};
                  load_lanes<T, N>(in + at, pixel);
#pragma unroll
                  for (int r = ph; r < K; r += S)
#pragma unroll
                    for (int s = pw; s < K; s += S)
#pragma unroll
                      for (int i = 0; i < N; ++i) {
                        const float v = window[(u - r / S + KB) % KB][t + KB - 1 - s / S][i];
                        sum[i] += wr[r * K + s][i] * v;
                        sums[r * K + s][i] += pixel[i] * v;
                      }
                  if (dx) {
                    T* to = dx + int64_t{n} * d.height * d.width * d.channels + c + at;
                    if (add_dx) {
                      float old[N];
                      load_lanes<T, N>(to, old);
#pragma unroll
                      for (int i = 0; i < N; ++i) sum[i] += old[i];
                    }
                    store_lanes<T, N>(to, sum);
                  }
                }
            }
          }
    }
  }
  if (!dw) return;
#pragma unroll
  for (int t = 0; t < K * K; ++t) dw_block_tap<N>(sums[t], t, d, partial);
  dw_finish<N>(d, partial, dw, add_dw);
}

/// Any kernel and channel count. dx: one input pixel at a time; then dw tap by tap, re-reading x and dyc.
template <class T, int N, DwSource Source>
__global__ __launch_bounds__(kDwThreads, 2) void dw_backward_any_kernel(const T* x, const T* w,
                                                                        BnGradient<T> g, const T* yc, Act act,
                                                                        BnVectors k, T* dx, bool add_dx,
                                                                        float* dw, bool add_dw, DwPlan d,
                                                                        float* partial) {
  const int column = threadIdx.x % d.columns, lane = threadIdx.x / d.columns, lanes = blockDim.x / d.columns;
  const int c = (blockIdx.y * d.columns + column) * N;
  const int64_t start = int64_t{blockIdx.x} * lanes + lane, step = int64_t{gridDim.x} * lanes;
  const bool active = c < d.channels;
  const DwGradient<T, N, Source> gradient(g, yc, act, k, active ? c : 0);
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
          gradient.at((n * d.out_height + oh) * d.out_width + ow, d.channels, c, dyc);
          load_lanes<T, N>(w + (r * d.kernel + s) * d.channels + c, wr);
#pragma unroll
          for (int i = 0; i < N; ++i) sum[i] += wr[i] * dyc[i];
        }
      store_lanes<T, N>(dx + p * d.channels + c, sum);
    }
  if (!dw) return;
  for (int tap = 0; tap < d.kernel * d.kernel; ++tap) {
    const int r = tap / d.kernel, s = tap % d.kernel;
    float sum[N] = {};
    if (active)
      for (int64_t p = start; p < int64_t{d.images} * d.out_height * d.out_width; p += step) {
        const int ow = p % d.out_width, oh = p / d.out_width % d.out_height;
        const int64_t n = p / d.out_width / d.out_height;
        const int ih = oh * d.stride + r - d.pad_top, iw = ow * d.stride + s - d.pad_left;
        if (ih < 0 || iw < 0 || ih >= d.height || iw >= d.width) continue;
        float dyc[N], pixel[N];
        gradient.at(p, d.channels, c, dyc);
        load_lanes<T, N>(x + ((n * d.height + ih) * d.width + iw) * d.channels + c, pixel);
#pragma unroll
        for (int i = 0; i < N; ++i) sum[i] += pixel[i] * dyc[i];
      }
    dw_block_tap<N>(sum, tap, d, partial);
  }
  dw_finish<N>(d, partial, dw, add_dw);
}

/// din[0] and din[1] of a depthwise convolution whose dyc comes from `source`.
template <class T, DwSource Source>
void dw_launch_backward(const OpCall& c, const DepthwiseShape& d, const BnGradient<T>& g, const T* yc,
                        Act act, const BnVectors& k, float* partial) {
  if (!c.din[0] && !c.din[1]) return;
  const DepthwiseSlices sl(d.channels, kDwBackwardThreads);
  const int rows = (d.pad_top + int(d.height) - 1) / d.stride - d.pad_top / d.stride + 1;
  const int columns = (d.pad_left + int(d.width) - 1) / d.stride - d.pad_left / d.stride + 1;
  const DwPlan plan(d, sl.columns, rows, columns);
  GM_CHECK(sl.slices <= kBnSlices, "depthwise: too many channels");
  const dim3 grid(static_cast<unsigned>(depthwise_gpu_partials(d)), static_cast<unsigned>(sl.slices));
  const unsigned threads = static_cast<unsigned>(sl.columns * sl.rows);
  const T *x = c.in[0].as<T>(), *w = c.in[1].as<T>();
  T* dx = c.din[0] ? c.din[0].view.as<T>() : nullptr;
  float* dw = c.din[1] ? c.din[1].view.as<float>() : nullptr;
  const bool add_dx = c.din[0].mode == GradMode::accumulate, add_dw = c.din[1].mode == GradMode::accumulate;
  if constexpr (Source != DwSource::sigmoid) {  // no network has a sigmoid here: not worth four large kernels
    const bool fast = dw_fast(d, [&](auto kernel, auto stride) {
      GM_LAUNCH((dw_backward_kernel<T, kernel.value, stride.value, Source>), grid, threads, 0, c.ctx.stream,
                x, w, g, yc, act, k, dx, add_dx, dw, add_dw, plan, partial);
    });
    if (fast) return;
  }
  if (sl.lanes == 1)
    GM_LAUNCH((dw_backward_any_kernel<T, 1, Source>), grid, threads, 0, c.ctx.stream, x, w, g, yc, act, k, dx,
              add_dx, dw, add_dw, plan, partial);
  else
    GM_LAUNCH((dw_backward_any_kernel<T, kDwLanes, Source>), grid, threads, 0, c.ctx.stream, x, w, g, yc, act,
              k, dx, add_dx, dw, add_dw, plan, partial);
}
/// The same for the dyc of a batch norm and this activation.
template <class T>
void dw_launch_backward_of(const OpCall& c, const DepthwiseShape& d, const BnGradient<T>& g, const T* yc,
                           Act act, const BnVectors& k, float* partial) {
  if (act == Act::silu) return dw_launch_backward<T, DwSource::silu>(c, d, g, yc, act, k, partial);
  if (act == Act::sigmoid) return dw_launch_backward<T, DwSource::sigmoid>(c, d, g, yc, act, k, partial);
  dw_launch_backward<T, DwSource::clamp>(c, d, g, yc, act, k, partial);
}

}  // namespace gm::GM_BACKEND_NS
