// Backward of the networks' commonest depthwise convolutions, 3x3 and 5x5 with stride 1 and a map as large as
// its input, in bf16: threads march as in forward (depthwise_plan.cuh); shared memory and barriers only for
// 25 weights at the beginning and the weight gradients of a block at the end.
#pragma once
#include "kernels/depthwise_conv2d/depthwise_parts.cuh"

namespace gm::GM_BACKEND_NS {

/// What the incoming gradient goes through first. `any`: the activation that `in` names.
enum class DwBefore { nothing, norm_silu, norm_any };

/// dyc of N channels from (dy, yc): dyc = scale * dz - c - q * (yc - mean), with the mean folded into the
/// other coefficients, as BnAffine does for bf16.
template <class T, int N, DwBefore Before>
struct DwNormGradient {
  static constexpr bool kNorm = Before != DwBefore::nothing;
  float scale[N] = {}, shift[N] = {}, slope[N] = {}, rest[N] = {}, gate[N] = {}, pooled[N] = {};

  __device__ __forceinline__ void channels(const DwIncoming<T>& in, int c) {
    if constexpr (kNorm) {
#pragma unroll
      for (int n = 0; n < N; ++n) {
        float k[kDwCoefficients];
        dw_coefficients(in, c + n, k, 1);
        scale[n] = k[1], shift[n] = k[2] - k[0] * k[1], slope[n] = -k[4], rest[n] = k[4] * k[0] - k[3];
      }
    }
  }
  __device__ __forceinline__ void image(const DwIncoming<T>& in, int image, int channels, int c) {
    if constexpr (kNorm) {
#pragma unroll
      for (int n = 0; n < N; ++n) gate[n] = 1.f, pooled[n] = 0.f;
      if (in.g.gate) load_lanes<float, N>(in.g.gate + int64_t{image} * channels + c, gate);
      if (in.g.dpool) load_lanes<float, N>(in.g.dpool + int64_t{image} * channels + c, pooled);
#pragma unroll
      for (int n = 0; n < N; ++n) pooled[n] *= in.g.per_pixel;
    }
  }
  __device__ __forceinline__ void operator()(const DwIncoming<T>& in, const float (&dy)[N],
                                             const float (&yc)[N], float (&dyc)[N]) const {
#pragma unroll
    for (int n = 0; n < N; ++n) {
      if constexpr (kNorm) {
        const float z = yc[n] * scale[n] + shift[n];
        float dz = dy[n] * gate[n] + pooled[n];
        if constexpr (Before == DwBefore::norm_silu) {
          dz *= act_slope<Act::silu, T>(z);
        } else {
          dz *= act_slope_any<T>(in.act, z);
        }
        dyc[n] = scale[n] * dz + (slope[n] * yc[n] + rest[n]);
      } else {
        dyc[n] = dy[n];
      }
    }
  }
};

/// dx and partial weight gradients; a thread owns two channels (5x5: one) and TW columns of a band of rows of
/// x. With a padding of H = K / 2 row ih of dx takes rows ih - H ... ih + H of dyc, which are in registers,
///   dx[ih][iw] = sum w[r][s] dyc[ih + H - r][iw + H - s]
///   dw[r][s] += x[ih][iw] dyc[ih + H - r][iw + H - s]
/// while the loads of the next row are in flight. Every dyc is formed once, but for the columns and rows that
/// neighbouring units share. (dx null: not wanted; partial null: dw not wanted.)
/// Alone: a strip is as wide as the map.
template <class T, int K, int TW, bool Alone, DwBefore Before>
__global__ __launch_bounds__(kDwBackThreads, kDwBackBlocks) void dw_march_backward_kernel(
    const T* x, const T* w, DwIncoming<T> in, T* dx, bool add_dx, DwShape d, DwMarch m, float* partial) {
  await_launch_before();
  constexpr int N = depthwise_lanes(K), H = K / 2, J = TW + K - 1;
  constexpr bool kNorm = Before != DwBefore::nothing, kWeightsShared = K > 3;
  GM_DYN_SHARED(float, shared);
  const auto [column, lane, lanes, slice, first, c] = DwThread(d, N);
  const bool active = c < d.channels;
  const int pitch = d.width * d.channels;
  // The unit that is marched down. H columns on each side of its strip may lie outside the image; what does
  // is 0. (Strips fill the map and are no narrower than H, so each side is inside or outside as a whole.)
  int unit = static_cast<int>(blockIdx.x) * lanes + lane, image = 0, first_row = 0, rows = 0;
  bool left = false, right = false;
  int64_t corner = 0;
  RawLanes<T, N> dy[J], yc[kNorm ? J : 1], pixel[TW];
  auto fetch = [&](int ih) {  // or the nearest row of the image, for nothing
    const int64_t row = corner + int64_t{max(0, min(ih, d.height - 1))} * pitch;
#pragma unroll
    for (int j = 0; j < J; ++j) {
      if ((j < H && !left) || (j >= J - H && !right)) continue;
      dy[j].load(in.g.dy + row + (j - H) * d.channels);
      if constexpr (kNorm) yc[j].load(in.yc + row + (j - H) * d.channels);
    }
  };
  auto begin = [&] {  // false: that was the last
    if (!active || unit >= m.units) return false;
    const DwUnit at(m, unit, TW, d);
    image = at.image, first_row = at.row, rows = at.rows;
    corner = int64_t{at.image} * d.height * pitch + at.column * d.channels + c;
    left = !Alone && at.column > 0, right = !Alone && at.column + TW < d.width;
    fetch(at.row - H);
    return true;
  };
  // Before weights and coefficients are waited for: the first row's loads are in flight together with theirs.
  bool more = begin();
  float wr[kWeightsShared ? 1 : K * K][N] = {}, sums[K * K][N] = {};
  if constexpr (kWeightsShared) dw_share_weights<T, K, N>(w, shared, slice, first, d.channels);
  DwNormGradient<T, N, Before> through;
  if (active) {
    if constexpr (!kWeightsShared) {
#pragma unroll
      for (int k = 0; k < K * K; ++k) load_lanes<T, N>(w + k * d.channels + c, wr[k]);
    }
    through.channels(in, c);
  }
  while (more) {
    through.image(in, image, d.channels, c);
    float window[K][J][N];  // row t of the march in slot t % K
    auto take_row = [&](float(&to)[J][N], bool inside) {
#pragma unroll
      for (int j = 0; j < J; ++j) {
        if (!inside || (j < H && !left) || (j >= J - H && !right)) {
#pragma unroll
          for (int n = 0; n < N; ++n) to[j][n] = 0.f;
        } else {
          float g[N], v[N] = {};
          dy[j].to_float(g);
          if constexpr (kNorm) yc[j].to_float(v);
          through(in, g, v, to[j]);
        }
      }
    };
    for (int t0 = 0; t0 < rows + K - 1; t0 += K)
#pragma unroll
      for (int u = 0; u < K; ++u) {
        const int t = t0 + u, ih = first_row + t - (K - 1);
        if (t >= rows + K - 1) break;
        take_row(window[u], static_cast<unsigned>(first_row - H + t) < static_cast<unsigned>(d.height));
        fetch(first_row - H + 1 + t);
        if (t >= K - 1) {
          float own[TW][N];
#pragma unroll
          for (int q = 0; q < TW; ++q) pixel[q].to_float(own[q]);
          float sum[TW][N] = {};
#pragma unroll
          for (int r = 0; r < K; ++r)
#pragma unroll
            for (int s = 0; s < K; ++s) {
              float tap[N];
              if constexpr (kWeightsShared) {
                load_lanes<float, N>(shared + (column * K * K + r * K + s) * N, tap);
              } else {
#pragma unroll
                for (int n = 0; n < N; ++n) tap[n] = wr[r * K + s][n];
              }
#pragma unroll
              for (int q = 0; q < TW; ++q)
#pragma unroll
                for (int n = 0; n < N; ++n) {
                  const float v = window[(u - r + K) % K][q + K - 1 - s][n];
                  sum[q][n] += tap[n] * v;
                  sums[r * K + s][n] += own[q][n] * v;
                }
            }
          if (dx) {
            T* const to = dx + corner + int64_t{ih} * pitch;
            if (add_dx) {
#pragma unroll
              for (int q = 0; q < TW; ++q) put_lanes<T, N>(to + q * d.channels, sum[q], true);
            } else {
#pragma unroll
              for (int q = 0; q < TW; ++q) store_lanes<T, N>(to + q * d.channels, sum[q]);
            }
          }
        }
        // Pixels of row ih + 1, wanted once its last row of dyc has come; before the first row some other.
        const int64_t next = corner + int64_t{max(0, min(ih + 1, d.height - 1))} * pitch;
#pragma unroll
        for (int q = 0; q < TW; ++q) pixel[q].load(x + next + q * d.channels);
      }
    unit += static_cast<int>(gridDim.x) * lanes;
    more = begin();
  }
  if (!partial) return;
  dw_block_sums(sums, 0, shared, d, partial);
}

/// Launches it and returns its number of blocks; 0 when the problem is another.
template <class T, bool Norm>
int dw_launch_march_backward(const T* x, const T* w, const DwIncoming<T>& in, T* dx, bool add_dx,
                             const DepthwiseShape& d, float* partial, const Context& ctx) {
  if constexpr (std::is_same_v<T, bf16>) {
    const DepthwiseMarchBack back(d, summing_multiprocessors(ctx));
    if (!in.g.dy || !back.fits) return 0;
    const DepthwiseSlices& sl = back.slices;
    const DepthwiseMarch& m = back.march;
    auto launch = [&](auto kernel, auto tile, auto alone, auto before) {
      constexpr int K = kernel.value;
      GM_LAUNCH((dw_march_backward_kernel<T, K, tile.value, alone.value, before.value>),
                dim3(static_cast<unsigned>(m.blocks), static_cast<unsigned>(sl.slices)),
                static_cast<unsigned>(sl.columns * sl.rows),
                dw_sums_bytes(K * K, depthwise_lanes(K), kDwBackThreads), ctx.stream, x, w, in, dx, add_dx,
                DwShape(d, sl.columns), DwMarch(m), partial);
    };
    auto strip = [&](auto before) {
      auto wide = [&](auto kernel, auto tile) {
        if (m.strips == 1) return launch(kernel, tile, std::true_type{}, before);
        launch(kernel, tile, std::false_type{}, before);
      };
      const std::integral_constant<int, 3> three;
      const std::integral_constant<int, 4> four;
      const std::integral_constant<int, 5> five;
      const std::integral_constant<int, 6> six;
      if (d.kernel == 5) return m.tile == 4 ? wide(five, four) : wide(five, six);
      if (m.tile == 4) return wide(three, four);
      if (m.tile == 6) return wide(three, six);
      wide(three, std::integral_constant<int, 7>{});
    };
    if constexpr (!Norm) {
      strip(std::integral_constant<DwBefore, DwBefore::nothing>{});
    } else if (in.act == Act::silu) {
      strip(std::integral_constant<DwBefore, DwBefore::norm_silu>{});
    } else {
      strip(std::integral_constant<DwBefore, DwBefore::norm_any>{});
    }
    return m.blocks;
  }
  return 0;
}

}  // namespace gm::GM_BACKEND_NS
