// Depthwise convolution forward, with or without batch-norm statistics of its output. How it works:
// depthwise_plan.cuh.
#include "kernels/batch_norm/bn_launch.cuh"
#include "kernels/common/ceil_div.h"
#include "kernels/depthwise_conv2d/depthwise_any.cuh"

namespace gm::GM_BACKEND_NS {

/// What becomes of an output before it is stored. `any`: the activation that the launch names; `pool`: sums
/// for a mean over each image besides.
enum class DwEnd { statistics, plain, silu, any, silu_pool, any_pool };

constexpr bool dw_pools(DwEnd end) { return end == DwEnd::silu_pool || end == DwEnd::any_pool; }
/// Whether taps are read from shared memory: 25 pairs of them leave registers for the rest only where few
/// columns are tested and no sums are formed for a pool. From there a row has 25 reads to 200 products, and
/// the two take the same time.
constexpr bool dw_shares_weights(int kernel, bool whole, DwEnd end) {
  return kernel > 3 && (!whole || dw_pools(end));
}

template <class T, int K, int S, int TW, bool Whole, DwEnd End>
__global__ __launch_bounds__(kDwThreads, 2) void dw_forward_kernel(const T* x, const T* w, const float* bias,
                                                                   T* y, DwShape d, DwMarch m, Act act,
                                                                   float* partial, BnFinish finish) {
  await_launch_before();
  constexpr int N = kDwLanes, J = (TW - 1) * S + K,  // columns that a strip reads
      L = ceil_div(K, S), U = L * S;                 // outputs open at a time; rows until that repeats
  constexpr bool kPool = dw_pools(End);
  constexpr bool kWeightsShared = dw_shares_weights(K, Whole, End);
  const auto [column, lane, lanes, slice, first, c] = DwThread(d, N);
  const bool active = c < d.channels;
  const int in_pitch = d.width * d.channels, out_pitch = d.out_width * d.channels;
  // The unit that is marched down.
  int unit = static_cast<int>(blockIdx.x) * lanes + lane, rows = 0, iw0 = 0, ih0 = 0;
  int columns = TW;  // of the strip inside the output
  const T* corner = nullptr;
  T* out = nullptr;
  Vec<T, N> held[J];
  auto fetch = [&](int ih) {  // or the nearest row of the image, for nothing
    const T* row = corner + int64_t{max(0, min(ih, d.height - 1))} * in_pitch;
#pragma unroll
    for (int j = 0; j < J; ++j) {
      const bool guarded = !Whole || j < K / 2 || j >= J - K / 2;
      if (!guarded || static_cast<unsigned>(iw0 + j) < static_cast<unsigned>(d.width))
        held[j] = Vec<T, N>::load(row + j * d.channels);
      else
        held[j] = {};
    }
  };
  auto begin = [&] {  // false: that was the last
    if (!active || unit >= m.units) return false;
    const DwUnit at(m, unit, TW, d);
    if constexpr (!Whole) columns = d.out_width - at.column;
    iw0 = at.column * S - d.pad_left, ih0 = at.row * S - d.pad_top, rows = (at.rows - 1) * S + K;
    corner = x + int64_t{at.image} * d.height * in_pitch + iw0 * d.channels + c;
    out = y + (int64_t{at.image} * d.out_height + at.row) * out_pitch + at.column * d.channels + c;
    fetch(ih0);
    return true;
  };
  // Before weights and pivot are waited for: the first row's loads are in flight together with theirs. Those
  // of f32 take registers that its pivot wants.
  constexpr bool kRowFirst = sizeof(T) == 2;
  bool more = false;
  if constexpr (kRowFirst) more = begin();
  GM_DYN_SHARED(float, weights);
  if constexpr (kWeightsShared) dw_share_weights<T, K, N>(w, weights, slice, first, d.channels);
  float wr[kWeightsShared ? 1 : K * K][N], b[N] = {};
  DwStatistics<N> st;
  if (active) {
    if constexpr (!kWeightsShared) {
#pragma unroll
      for (int k = 0; k < K * K; ++k) load_lanes<T, N>(w + k * d.channels + c, wr[k]);
    }
    if constexpr (End == DwEnd::statistics) {
      st.template start<K>(x, w, d, c, blockIdx.x == 0 && lane == 0 ? finish.v.pivot : nullptr);
    } else {
      if (bias) load_lanes<float, N>(bias + c, b);
    }
  }
  if constexpr (!kRowFirst) more = begin();
  while (more) {
    // acc[i]: the open output rows h with h % L == i. Row t of the march, t % U == u, is tap row r of output
    // row (t - r) / S.
    float acc[L][TW][N] = {};
    auto place_of = [&](int u, int r) { return (u - r + U * K) / S % L; };
    auto add_row = [&](int u, const float(&in)[J][N]) {
#pragma unroll
      for (int r = 0; r < K; ++r) {
        if ((u - r + U) % S != 0) continue;
        float(&open)[TW][N] = acc[place_of(u, r)];
#pragma unroll
        for (int s = 0; s < K; ++s) {
          float tap[N];
          if constexpr (kWeightsShared) {
            load_lanes<float, N>(weights + (column * K * K + r * K + s) * N, tap);
          } else {
#pragma unroll
            for (int n = 0; n < N; ++n) tap[n] = wr[r * K + s][n];
          }
#pragma unroll
          for (int q = 0; q < TW; ++q)
#pragma unroll
            for (int n = 0; n < N; ++n)  // the first tap opens an output
              open[q][n] = (r == 0 && s == 0 ? b[n] : open[q][n]) + in[q * S + s][n] * tap[n];
        }
      }
    };
    auto open_row = [&](int u) {
#pragma unroll
      for (int q = 0; q < TW; ++q)
#pragma unroll
        for (int n = 0; n < N; ++n) acc[place_of(u, 0)][q][n] = b[n];
    };
    float total[N] = {};  // of the unit's outputs
    auto finish_row = [&](int u) {
      float(&done)[TW][N] = acc[place_of(u, K - 1)];
#pragma unroll
      for (int q = 0; q < TW; ++q) {
#pragma unroll
        for (int n = 0; n < N; ++n) {
          if constexpr (End == DwEnd::silu || End == DwEnd::silu_pool)
            done[q][n] = act_value<Act::silu, T>(done[q][n]);
          if constexpr (End == DwEnd::any || End == DwEnd::any_pool)
            done[q][n] = act_value_any<T>(act, done[q][n]);
        }
        if (q < columns) {
          store_rounded<T, N>(out + q * d.channels, done[q]);
          if constexpr (End == DwEnd::statistics) {
#pragma unroll
            for (int n = 0; n < N; ++n) st.add(n, done[q][n]);
          }
          if constexpr (kPool) {
#pragma unroll
            for (int n = 0; n < N; ++n) total[n] += done[q][n];
          }
        }
      }
      out += out_pitch;
    };
    for (int t0 = 0; t0 < rows; t0 += U)
#pragma unroll
      for (int u = 0; u < U; ++u) {
        const int t = t0 + u;
        if (t >= rows) break;
        float in[J][N];
#pragma unroll
        for (int j = 0; j < J; ++j) held[j].to_float(in[j]);
        fetch(ih0 + t + 1);
        if (static_cast<unsigned>(ih0 + t) < static_cast<unsigned>(d.height))
          add_row(u, in);
        else if (u % S == 0)
          open_row(u);
        if ((u - (K - 1) + U) % S == 0 && t >= K - 1) finish_row(u);
      }
    if constexpr (kPool) store_lanes<float, N>(partial + int64_t{unit} * d.channels + c, total);
    unit += static_cast<int>(gridDim.x) * lanes;
    more = begin();
  }
  if constexpr (End == DwEnd::statistics) {
    bn_reduce<N>(st.sum, st.square, d.columns, lanes, first, d.channels, partial, finish);
  }
}

/// Calls launch(tile, whole, end) with constants.
template <class T, DwEnd End, int K, class Launch>
void dw_choose_forward(const DepthwiseMarch& m, Act act, Launch launch) {
  auto strip = [&](auto end) {
    if constexpr (std::is_same_v<T, bf16>) {
      if (m.whole && m.tile == 4) return launch(std::integral_constant<int, 4>{}, std::true_type{}, end);
      if constexpr (K == 3) {
        if (m.whole && m.tile == 6) return launch(std::integral_constant<int, 6>{}, std::true_type{}, end);
        if (m.whole) return launch(std::integral_constant<int, 7>{}, std::true_type{}, end);
      }
    }
    launch(std::integral_constant<int, 4>{}, std::false_type{}, end);
  };
  if constexpr (End == DwEnd::any_pool && std::is_same_v<T, bf16>) {
    if (act == Act::silu) return strip(std::integral_constant<DwEnd, DwEnd::silu_pool>{});
  }
  if constexpr (End == DwEnd::any && std::is_same_v<T, bf16>) {
    if (act == Act::none) return strip(std::integral_constant<DwEnd, DwEnd::plain>{});
    if (act == Act::silu) return strip(std::integral_constant<DwEnd, DwEnd::silu>{});
  }
  strip(std::integral_constant<DwEnd, End>{});
}

/// finish: for `statistics`, with at most kBnGpuBlocks partials in `partial`.
template <class T, DwEnd End>
bool dw_launch(const T* x, const T* w, const float* bias, T* y, const DepthwiseShape& d, Act act,
               float* partial, const BnFinish& finish, const Context& ctx) {
  const DepthwiseSlices sl(d.channels, kDwLanes);
  const DwShape shape(d, sl.columns);
  GM_CHECK(sl.slices <= kBnSlices, "depthwise: too many channels");
  const unsigned threads = static_cast<unsigned>(sl.columns * sl.rows),
                 slices = static_cast<unsigned>(sl.slices);
  if (depthwise_marches(d)) {
    const DepthwiseMarch m(d, std::is_same_v<T, float> ? DType::f32 : DType::bf16, sl);
    const auto blocks = static_cast<unsigned>(m.forward_blocks(sl, summing_multiprocessors(ctx)));
    dw_switch(d, [&](auto k, auto s) {
      dw_choose_forward<T, End, k.value>(m, act, [&](auto tile, auto whole, auto end) {
        const size_t shared = dw_shares_weights(k.value, whole.value, end.value)
                                  ? sizeof(float) * d.taps() * sl.columns * kDwLanes
                                  : 0;
        GM_LAUNCH((dw_forward_kernel<T, k.value, s.value, tile.value, whole.value, end.value>),
                  dim3(blocks, slices), threads, shared, ctx.stream, x, w, bias, y, shape, DwMarch(m), act,
                  partial, finish);
      });
    });
    return true;
  }
  constexpr bool Stats = End == DwEnd::statistics;
  const int64_t pixels = d.images * d.out_height * d.out_width;
  const int64_t most = std::clamp<int64_t>(kDwBlocks / sl.slices, 1, kBnGpuBlocks);
  const dim3 grid(static_cast<unsigned>(std::clamp<int64_t>(ceil_div(pixels, sl.rows), 1, most)), slices);
  if (sl.lanes == 1)
    GM_LAUNCH((dw_forward_any_kernel<T, 1, Stats>), grid, threads, 0, ctx.stream, x, w, bias, y, shape, act,
              partial, finish);
  else
    GM_LAUNCH((dw_forward_any_kernel<T, 2, Stats>), grid, threads, 0, ctx.stream, x, w, bias, y, shape, act,
              partial, finish);
  return End != DwEnd::any_pool;
}

template <class T>
void dw_launch_forward(const T* x, const T* w, const float* bias, T* y, const DepthwiseShape& d, Act act,
                       const Context& ctx) {
  dw_launch<T, DwEnd::any>(x, w, bias, y, d, act, nullptr, BnFinish{.v = BnVectors(nullptr, 0)}, ctx);
}

template <class T>
bool dw_launch_pooled(const T* x, const T* w, const float* bias, T* y, const DepthwiseShape& d, Act act,
                      float* partial, const Context& ctx) {
  return dw_launch<T, DwEnd::any_pool>(x, w, bias, y, d, act, partial, BnFinish{.v = BnVectors(nullptr, 0)},
                                       ctx);
}

template <class T>
BnVectors dw_launch_normalised(const OpCall& c, const DepthwiseShape& d, T* yc) {
  float* memory = static_cast<float*>(c.workspace.data);
  const BnVectors v(memory, d.channels);
  const BnFinish finish = bn_finish_of(c, 2, 1, v, d.output().pixels());
  const T *x = c.in[0].as<T>(), *w = c.in[1].as<T>();
  if (BatchNormAttrs(c.attrs).training) {
    dw_launch<T, DwEnd::statistics>(x, w, nullptr, yc, d, Act::none, bn_gpu_partials(memory, d.channels),
                                    finish, c.ctx);
  } else {
    dw_launch<T, DwEnd::any>(x, w, nullptr, yc, d, Act::none, nullptr, finish, c.ctx);
    bn_launch_running(finish, d.channels, BnDraw(), c.ctx);
  }
  return v;
}

#define GM_DW_FORWARD(T)                                                                               \
  template void dw_launch_forward<T>(const T*, const T*, const float*, T*, const DepthwiseShape&, Act, \
                                     const Context&);                                                  \
  template bool dw_launch_pooled<T>(const T*, const T*, const float*, T*, const DepthwiseShape&, Act,  \
                                    float*, const Context&);                                           \
  template BnVectors dw_launch_normalised<T>(const OpCall&, const DepthwiseShape&, T*);
GM_DW_FORWARD(float)
GM_DW_FORWARD(bf16)
#undef GM_DW_FORWARD

}  // namespace gm::GM_BACKEND_NS
