// What the fast and the generic depthwise kernels share: statistics of the output, the gradient before batch
// norm and activation, and a block's weight gradients.
#pragma once
#include "kernels/batch_norm/bn_reduce.cuh"
#include "kernels/common/act_any.cuh"
#include "kernels/depthwise_conv2d/depthwise_launch.cuh"
#include "kernels/depthwise_conv2d/depthwise_plan.cuh"

namespace gm::GM_BACKEND_NS {

/// Stores f and leaves in it what was stored.
template <class T, int N>
__device__ __forceinline__ void store_rounded(T* p, float (&f)[N]) {
  if constexpr (N == 1) {
    const T stored = from_float<T>(f[0]);
    *p = stored;
    f[0] = to_float(stored);
  } else {
    const Vec<T, N> stored = Vec<T, N>::from_float(f);
    stored.store(p);
    stored.to_float(f);
  }
}

/// BN statistics of the output as stored, about a pivot every block forms alike: the output at the middle of
/// the first image.
template <int N>
struct DwStatistics {
  float pivot[N] = {}, sum[N] = {}, square[N] = {};

  /// K: the kernel's size where it is a constant, so that all loads are in flight together; else 0.
  template <int K, class T>
  __device__ __forceinline__ void start(const T* x, const T* w, const DwShape& d, int c, float* store) {
    const int ih0 = d.out_height / 2 * d.stride - d.pad_top, iw0 = d.out_width / 2 * d.stride - d.pad_left,
              size = K ? K : d.kernel;
#pragma unroll
    for (int r = 0; r < size; ++r)
#pragma unroll
      for (int s = 0; s < size; ++s) {
        const int ih = ih0 + r, iw = iw0 + s;
        const bool inside = ih >= 0 && ih < d.height && iw >= 0 && iw < d.width;
        float v[N], k[N];
        load_lanes<T, N>(x + (inside ? (int64_t{ih} * d.width + iw) * d.channels : 0) + c, v);
        load_lanes<T, N>(w + (r * size + s) * d.channels + c, k);
#pragma unroll
        for (int i = 0; i < N; ++i) pivot[i] += inside ? v[i] * k[i] : 0.f;
      }
    if (store) {
#pragma unroll
      for (int i = 0; i < N; ++i) store[c + i] = pivot[i];
    }
  }
  __device__ __forceinline__ void add(int i, float y) {
    const float v = y - pivot[i];
    sum[i] += v;
    square[i] += v * v;
  }
};

/// The weights of a slice's channels from `first` on, to shared[column][tap][lane]: a thread's N are
/// together, K * K apart from its neighbour's, so no banks conflict. For all threads of a block.
template <class T, int K, int N>
__device__ __forceinline__ void dw_share_weights(const T* w, float* shared, int slice, int first,
                                                 int channels) {
  for (int i = threadIdx.x; i < K * K * slice; i += blockDim.x) {
    const int tap = i / slice, k = i - tap * slice;
    shared[(k / N * K * K + tap) * N + k % N] = to_float(w[tap * channels + min(first + k, channels - 1)]);
  }
  __syncthreads();
}

constexpr int kDwCoefficients = 5;  // mean, scale, beta, c, q

/// Those of channel c at to[quantity * pitch].
template <class T>
__device__ __forceinline__ void dw_coefficients(const DwIncoming<T>& in, int c, float* to, int pitch) {
  float mean[1], scale[1], beta[1] = {};
  if (in.act == Act::none)
    in.norm.template load<1, false>(c, mean, scale, beta);
  else
    in.norm.template load<1, true>(c, mean, scale, beta);
  to[0] = mean[0];
  to[pitch] = scale[0];
  to[2 * pitch] = beta[0];
  to[3 * pitch] = in.norm.frozen ? 0.f : in.norm.v.c[c];
  to[4 * pitch] = in.norm.frozen ? 0.f : in.norm.v.q[c];
}

/// Silu: in.act is silu. g: dy in, dyc out, of N channels; v: yc; coefficients of channel i at k[quantity *
/// pitch + i].
template <bool Silu, int N, class T>
__device__ __forceinline__ void dw_through_norm(const DwIncoming<T>& in, int image, int channels, int c,
                                                const float (&v)[N], const float* k, int pitch,
                                                float (&g)[N]) {
  bn_gate_and_pool(in.g, static_cast<unsigned>(image), channels, c, g);
  constexpr int H = N < 4 ? N : 4;  // in parts: registers
#pragma unroll
  for (int part = 0; part < N; part += H) {
    float mean[H], scale[H], beta[H], shift[H], slope[H];
    load_lanes<float, H>(k + part, mean);
    load_lanes<float, H>(k + pitch + part, scale);
    load_lanes<float, H>(k + 2 * pitch + part, beta);
    load_lanes<float, H>(k + 3 * pitch + part, shift);
    load_lanes<float, H>(k + 4 * pitch + part, slope);
#pragma unroll
    for (int i = 0; i < H; ++i) {
      const float centred = v[part + i] - mean[i], z = centred * scale[i] + beta[i];
      float dz = g[part + i];
      if constexpr (Silu) {
        dz *= act_slope<Act::silu, T>(z);
      } else {
        dz *= act_slope_any<T>(in.act, z);
      }
      g[part + i] = scale[i] * dz - shift[i] - slope[i] * centred;
    }
  }
}

/// Every thread's sums of all taps over the block, rows in order, into partial[block][tap][channel]. shared:
/// dw_sums_bytes. Every thread must call; shared memory is free before and after.
template <int Taps, int N>
__device__ __forceinline__ void dw_block_sums(const float (&v)[Taps][N], int first_tap, float* shared,
                                              const DwShape& d, float* partial) {
  const int width = d.columns * N, first = blockIdx.y * width, rows = blockDim.x / d.columns,
            threads = static_cast<int>(blockDim.x);
  __syncthreads();
#pragma unroll
  for (int t = 0; t < Taps; ++t)
#pragma unroll
    for (int i = 0; i < N; ++i) shared[(t * threads + static_cast<int>(threadIdx.x)) * N + i] = v[t][i];
  __syncthreads();
  for (int k = threadIdx.x; k < Taps * width; k += threads) {
    const int tap = k / width, channel = k - tap * width;
    float sum = 0.f;
    for (int r = 0; r < rows; ++r) sum += shared[tap * threads * N + r * width + channel];
    if (first + channel < d.channels)
      partial[(int64_t{blockIdx.x} * d.kernel * d.kernel + first_tap + tap) * d.channels + first + channel] =
          sum;
  }
  __syncthreads();
}
inline size_t dw_sums_bytes(int taps, int lanes, int threads = kDwThreads) {
  return static_cast<size_t>(taps * lanes * threads) * sizeof(float);
}

}  // namespace gm::GM_BACKEND_NS
