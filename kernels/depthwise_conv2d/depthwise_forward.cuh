// Depthwise convolution forward, with or without batch-norm statistics of its output. How it works:
// depthwise_plan.cuh.
#pragma once
#include "kernels/batch_norm/bn_forward.cuh"
#include "kernels/depthwise_conv2d/depthwise_any.cuh"

namespace gm::GM_BACKEND_NS {

template <class T, int K, int S, bool Stats>
__global__ __launch_bounds__(kDwThreads, 2) void dw_forward_kernel(const T* x, const T* w, const float* bias,
                                                                   T* y, DwShape d, DwTiles t, Act act,
                                                                   float* partial, BnFinish finish) {
  constexpr int TW = kDwTile, N = depthwise_lanes(K), IW = (TW - 1) * S + K, kBatch = 4;
  GM_DYN_SHARED(T, tile);
  const auto [column, lane, lanes, slice, first, c] = DwThread(d, N);
  DwStatistics<N> st;
  float b[N] = {};
  if (c < d.channels) {
    if (bias) load_lanes<float, N>(bias + c, b);
    if constexpr (Stats) {
      st.template start<K>(x, w, d, c, blockIdx.x == 0 && lane == 0 ? finish.v.pivot : nullptr);
    }
  }
  for (int at = blockIdx.x; at < t.tiles; at += gridDim.x) {
    const DwPlace place(t, at, d.images);
    const int top = place.row * S - d.pad_top, left = place.column * S - d.pad_left;
    const T* corner = x + int64_t{place.image} * d.height * d.width * d.channels;
    Vec<T, kVecLanes<T>> held[kBatch];
    __syncthreads();  // the tile before has been read
    dw_fill<T, kBatch>(
        t, place, tile, slice, d.height, d.width, d.channels, top, left, first,
        [&](int k, int from) { held[k] = Vec<T, kVecLanes<T>>::load(corner + from); },
        [&](int k, int, int, bool inside, T* to) {
          if (!inside) held[k] = {};
          held[k].store(to);
        });
    __syncthreads();
    if (c >= d.channels) continue;
    float wr[K * K][N];  // not kept over the load phase: registers
#pragma unroll
    for (int k = 0; k < K * K; ++k) load_lanes<T, N>(w + k * d.channels + c, wr[k]);
    for (int i = lane; i < place.images * t.bands * t.tile_strips; i += lanes) {
      const DwItem item(t, place, i);
      const T* from =
          tile + ((item.image * t.held_rows + item.first * S) * t.held_columns + item.column * S) * slice +
          column * N;
      const int columns = d.out_width - place.column - item.column;  // of the strip inside the output
      T* out = y +
               (((int64_t{place.image} + item.image) * d.out_height + place.row + item.first) * d.out_width +
                place.column + item.column) *
                   d.channels +
               c;
      float window[K][IW][N];
      auto load_row = [&](float(&row)[IW][N]) {
#pragma unroll
        for (int j = 0; j < IW; ++j) load_lanes<T, N>(from + j * slice, row[j]);
        from += t.held_columns * slice;
      };
#pragma unroll
      for (int r = 0; r < K - S; ++r) load_row(window[r]);
      for (int h = item.first; h < item.last; h += K)
#pragma unroll
        for (int u = 0; u < K; ++u)
          if (h + u < item.last) {
#pragma unroll
            for (int r = K - S; r < K; ++r) load_row(window[(S * u + r) % K]);
#pragma unroll
            for (int q = 0; q < TW; ++q) {
              float acc[N];
#pragma unroll
              for (int n = 0; n < N; ++n) {
                acc[n] = b[n];
#pragma unroll
                for (int r = 0; r < K; ++r)
#pragma unroll
                  for (int s = 0; s < K; ++s)
                    acc[n] += window[(S * u + r) % K][q * S + s][n] * wr[r * K + s][n];
                if (act != Act::none) acc[n] = act_value_any<T>(act, acc[n]);
              }
              if (q < columns) {
                store_rounded<T, N>(out + q * d.channels, acc);
                if constexpr (Stats) {
#pragma unroll
                  for (int n = 0; n < N; ++n) st.add(n, acc[n]);
                }
              }
            }
            out += d.out_width * d.channels;
          }
    }
  }
  if constexpr (Stats) {
    bn_reduce<N>(st.sum, st.square, d.columns, lanes, first, d.channels, partial, finish);
  }
}

/// y = act(conv + bias); Stats: also BN statistics of y (finish, partial), at most kBnGpuBlocks partials.
template <class T, bool Stats>
void dw_launch_forward(const T* x, const T* w, const float* bias, T* y, const DepthwiseShape& d, Act act,
                       float* partial, const BnFinish& finish, const Context& ctx) {
  const DepthwiseSlices sl(d);
  const DwShape shape(d, sl.columns);
  GM_CHECK(sl.slices <= kBnSlices, "depthwise: too many channels");
  const int64_t most = std::clamp<int64_t>(kDwBlocks / sl.slices, 1, kBnGpuBlocks);
  const unsigned threads = static_cast<unsigned>(sl.columns * sl.rows),
                 slices = static_cast<unsigned>(sl.slices);
  const bool fast = dw_fast<T>(d, [&](auto k, auto s) {
    const DwTiles t(shape.images, shape.out_height, shape.out_width, s.value, k.value, sizeof(T), sl);
    GM_LAUNCH((dw_forward_kernel<T, k.value, s.value, Stats>),
              dim3(static_cast<unsigned>(t.blocks(most)), slices), threads, static_cast<size_t>(t.bytes),
              ctx.stream, x, w, bias, y, shape, t, act, partial, finish);
  });
  if (fast) return;
  const int64_t pixels = d.images * d.out_height * d.out_width;
  const dim3 grid(static_cast<unsigned>(std::clamp<int64_t>((pixels + sl.rows - 1) / sl.rows, 1, most)),
                  slices);
  if (sl.lanes == 1)
    GM_LAUNCH((dw_forward_any_kernel<T, 1, Stats>), grid, threads, 0, ctx.stream, x, w, bias, y, shape, act,
              partial, finish);
  else
    GM_LAUNCH((dw_forward_any_kernel<T, 2, Stats>), grid, threads, 0, ctx.stream, x, w, bias, y, shape, act,
              partial, finish);
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
