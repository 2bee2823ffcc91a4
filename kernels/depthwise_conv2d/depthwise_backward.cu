// Depthwise convolution backward, of a plain one and through batch norm and activation. How it works:
// depthwise_plan.cuh.
#include "kernels/common/partials.cuh"
#include "kernels/depthwise_conv2d/depthwise_any.cuh"
#include "kernels/depthwise_conv2d/depthwise_march_backward.cuh"

namespace gm::GM_BACKEND_NS {

/// dx and partial weight gradients in one kernel: both use the same neighbourhood of dyc round an input
/// pixel,
///   dx(pixel) = sum w * dyc,  dw += x(pixel) * dyc,
/// so only dyc has a halo and x needs none. With q = ih + pad_top, m = q / S and phase q mod S, tap row
/// r = S j + phase meets output row m - j: a thread owns TW values of m (S * TW columns) and marches down m
/// with a window of KB = (K - 1) / S + 1 rows of dyc. Positions of the tiles: m from pad / S on. (dx null:
/// not wanted; partial null: dw not wanted.)
template <class T, int K, int S, DwBefore Before>
__global__ __launch_bounds__(kDwThreads, std::is_same_v<T, float> ? 1 : 2) void dw_backward_kernel(
    const T* x, const T* w, DwIncoming<T> in, T* dx, bool add_dx, DwShape d, DwTiles t, float* partial) {
  await_launch_before();
  constexpr int TW = kDwTile, N = depthwise_lanes(K), V = kVecLanes<T>, KB = (K - 1) / S + 1,
                WW = TW + KB - 1, kBatch = 2;
  constexpr bool kNorm = Before != DwBefore::nothing;
  GM_DYN_SHARED(float, coefficients);
  const auto [column, lane, lanes, slice, first, c] = DwThread(d, N);
  T* const tile = reinterpret_cast<T*>(coefficients + kDwCoefficients * slice);
  const int pitch = d.width * d.channels, m_first = d.pad_top / S, mw_first = d.pad_left / S;
  if constexpr (kNorm) {
    for (int i = threadIdx.x; i < slice; i += blockDim.x)
      dw_coefficients(in, min(first + i, d.channels - 1), coefficients + i, slice);
  }
  float sums[K * K][N] = {};
  for (int at = blockIdx.x; at < t.tiles; at += gridDim.x) {
    const DwPlace place(t, at, d.images);
    const int top = m_first + place.row - (KB - 1), left = mw_first + place.column - (KB - 1);
    const int64_t corner = int64_t{place.image} * d.out_height * d.out_width * d.channels;
    Vec<T, V> held[kBatch], conv[kBatch];
    __syncthreads();  // the tile before has been read; the coefficients are there
    dw_fill<T, kBatch>(
        t, place, tile, slice, d.out_height, d.out_width, d.channels, top, left, first,
        [&](int k, int from) {
          held[k] = in.g.dy ? Vec<T, V>::load(in.g.dy + corner + from) : Vec<T, V>{};
          if constexpr (kNorm) conv[k] = Vec<T, V>::load(in.yc + corner + from);
        },
        [&](int k, int image, int channel, bool inside, T* to) {
          if constexpr (kNorm) {
            float g[V], v[V];
            held[k].to_float(g);
            conv[k].to_float(v);
            dw_through_norm<Before == DwBefore::norm_silu, V>(in, place.image + image, d.channels,
                                                              min(first + channel, d.channels - V), v,
                                                              coefficients + channel, slice, g);
            held[k] = Vec<T, V>::from_float(g);
          }
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
      const T* from = tile +
                      ((item.image * t.held_rows + item.first) * t.held_columns + item.column) * slice +
                      column * N;
      const int iw0 = S * (mw_first + place.column + item.column) - d.pad_left;
      const int64_t at_item = (int64_t{place.image} + item.image) * d.height * d.width * d.channels +
                              int64_t{iw0} * d.channels + c;
      auto inside = [&](int q) { return iw0 + q >= 0 && iw0 + q < d.width; };
      float window[KB][WW][N];
      auto load_row = [&](float(&row)[WW][N]) {
#pragma unroll
        for (int j = 0; j < WW; ++j) load_lanes<T, N>(from + j * slice, row[j]);
        from += t.held_columns * slice;
      };
#pragma unroll
      for (int j = 1; j < KB; ++j) load_row(window[j]);
      // Pixels of x are fetched a row ahead of their use; a row outside the image is some other for nothing.
      RawLanes<T, N> ahead[S * TW];
      auto fetch = [&](int ih) {
        const T* row = x + at_item + int64_t{max(0, min(ih, d.height - 1))} * pitch;
#pragma unroll
        for (int q = 0; q < S * TW; ++q) {
          ahead[q] = {};
          if (inside(q)) ahead[q].load(row + q * d.channels);
        }
      };
      const int ih_first = S * (m_first + place.row + item.first) - d.pad_top;
      fetch(ih_first);
      for (int h = item.first; h < item.last; h += KB)
#pragma unroll
        for (int u = 0; u < KB; ++u) {
          if (h + u >= item.last) break;
          const int ih0 = ih_first + S * (h + u - item.first);
          load_row(window[u]);
#pragma unroll
          for (int ph = 0; ph < S; ++ph) {
            const int ih = ih0 + ph;
            float pixel[S * TW][N];
#pragma unroll
            for (int q = 0; q < S * TW; ++q) ahead[q].to_float(pixel[q]);
            fetch(ih + 1);
            if (ih < 0 || ih >= d.height) continue;
            float sum[S * TW][N] = {};
#pragma unroll
            for (int q = 0; q < S * TW; ++q) {
              const int pw = q % S;
#pragma unroll
              for (int r = ph; r < K; r += S)
#pragma unroll
                for (int s = pw; s < K; s += S)
#pragma unroll
                  for (int n = 0; n < N; ++n) {
                    const float v = window[(u - r / S + KB) % KB][q / S + KB - 1 - s / S][n];
                    sum[q][n] += wr[r * K + s][n] * v;
                    sums[r * K + s][n] += pixel[q][n] * v;
                  }
            }
            T* dx_row = dx + at_item + int64_t{ih} * pitch;
            if (!dx) continue;
#pragma unroll
            for (int q = 0; q < S * TW; ++q)
              if (inside(q)) put_lanes<T, N>(dx_row + q * d.channels, sum[q], add_dx);
          }
        }
    }
  }
  if (!partial) return;
  dw_block_sums(sums, 0, coefficients, d, partial);
}

template <class T, bool Norm>
void dw_launch_backward(const OpCall& c, const DepthwiseShape& d, const DwIncoming<T>& in, float* partial) {
  if (!c.din[0] && !c.din[1]) return;
  const DepthwiseSlices sl(d);
  const DwShape shape(d, sl.columns);
  GM_CHECK(sl.slices <= kBnSlices, "depthwise: too many channels");
  const T *x = c.in[0].as<T>(), *w = c.in[1].as<T>();
  T* dx = c.din[0] ? c.din[0].view.as<T>() : nullptr;
  if (!c.din[1]) partial = nullptr;
  const bool add_dx = c.din[0].mode == GradMode::accumulate;
  const unsigned threads = static_cast<unsigned>(sl.columns * sl.rows),
                 slices = static_cast<unsigned>(sl.slices);
  int blocks = static_cast<int>(depthwise_gpu_partials(d));
  const int marching = dw_launch_march_backward<T, Norm>(x, w, in, dx, add_dx, d, partial, c.ctx);
  const int vector = kVecLanes<T>;  // the load phase
  const bool fast = !marching && (d.kernel == 3 || d.kernel == 5) && d.stride <= 2 &&
                    d.channels % vector == 0 && sl.columns * sl.lanes % vector == 0;
  if (fast)
    dw_switch(d, [&](auto kernel, auto stride) {
      constexpr int K = kernel.value, S = stride.value, KB = (K - 1) / S + 1;
      const int rows = (d.pad_top + shape.height - 1) / S - d.pad_top / S + 1,
                columns = (d.pad_left + shape.width - 1) / S - d.pad_left / S + 1,
                coefficients = kDwCoefficients * sl.columns * sl.lanes;
      const DwTiles t(shape.images, rows, columns, KB, sizeof(T), sl);
      blocks = t.blocks(blocks);
      auto launch = [&](auto before) {
        GM_LAUNCH((dw_backward_kernel<T, K, S, before.value>), dim3(static_cast<unsigned>(blocks), slices),
                  threads, std::max(t.bytes + coefficients * sizeof(float), dw_sums_bytes(K * K, sl.lanes)),
                  c.ctx.stream, x, w, in, dx, add_dx, shape, t, partial);
      };
      if constexpr (!Norm) {
        launch(std::integral_constant<DwBefore, DwBefore::nothing>{});
      } else {
        if constexpr (std::is_same_v<T, bf16>) {
          if (in.act == Act::silu) return launch(std::integral_constant<DwBefore, DwBefore::norm_silu>{});
        }
        launch(std::integral_constant<DwBefore, DwBefore::norm_any>{});
      }
    });
  if (marching) {
    blocks = marching;
  } else if (!fast) {
    const int64_t pixels = d.images * std::max(d.height * d.width, d.out_height * d.out_width);
    blocks = static_cast<int>(std::min<int64_t>(blocks, ceil_div(pixels, sl.rows)));
    const dim3 grid(static_cast<unsigned>(blocks), slices);
    if (sl.lanes == 1)
      GM_LAUNCH((dw_backward_any_kernel<T, 1>), grid, threads, dw_sums_bytes(1, 1), c.ctx.stream, x, w, in,
                dx, add_dx, shape, partial);
    else
      GM_LAUNCH((dw_backward_any_kernel<T, 2>), grid, threads, dw_sums_bytes(1, 2), c.ctx.stream, x, w, in,
                dx, add_dx, shape, partial);
  }
  if (!partial) return;
  const int weights = d.taps() * shape.channels;
  launch_sum_partials(partial, weights, blocks, c.din[1].view.as<float>(),
                      c.din[1].mode == GradMode::accumulate, c.ctx);
}

template void dw_launch_backward<float, false>(const OpCall&, const DepthwiseShape&, const DwIncoming<float>&,
                                               float*);
template void dw_launch_backward<bf16, false>(const OpCall&, const DepthwiseShape&, const DwIncoming<bf16>&,
                                              float*);
template void dw_launch_backward<float, true>(const OpCall&, const DepthwiseShape&, const DwIncoming<float>&,
                                              float*);
template void dw_launch_backward<bf16, true>(const OpCall&, const DepthwiseShape&, const DwIncoming<bf16>&,
                                             float*);

}  // namespace gm::GM_BACKEND_NS
