#include "kernels/channel_scale_pool/channel_scale_pool.h"

#include "kernels/common/op.h"
#include "kernels/common/pixel_warps.cuh"

namespace gm::GM_BACKEND_NS {

// Mapping: pixel_warps.cuh; x is read once. argmax may be null (inference).
template <class T, int V>
__global__ __launch_bounds__(32 * kPixelWarps, 3) void scale_pool_kernel(const T* x, const float* s, T* y,
                                                                         float* m, int* argmax,
                                                                         int64_t pixels, int64_t hw,
                                                                         int64_t channels, int average) {
  await_launch_before();
  for_pixels(pixels, [&](int64_t p) {
    const float* scale = s + p / hw * channels;
    ChannelPool r;
    struct Held {
      RawLanes<T, V> x;
      float scale[V];
    };
    for_channels<V, Held>(
        channels,
        [&](int64_t c, Held& held) {
          held.x.load(x + p * channels + c);
          load_lanes<float, V>(scale + c, held.scale);
        },
        [&](int64_t c, const Held& held) {
          float f[V];
          held.x.to_float(f);
#pragma unroll
          for (int k = 0; k < V; ++k) {
            f[k] *= held.scale[k];
            r.add(f[k], c + k);
          }
          store_lanes<T, V>(y + p * channels + c, f);
        });
    r.join();
    if (threadIdx.x == 0) {
      m[2 * p + average] = r.sum / static_cast<float>(channels);
      m[2 * p + 1 - average] = r.peak.value;
      if (argmax) argmax[p] = r.peak.at;
    }
  });
}

// Backward sums over pixels, so its mapping is channel_tiles.h: a thread owns channels and keeps their sums;
// the pixel's two pooled gradients and its arg-max are the same word for a whole row of threads (one
// broadcast read). dy and dm may be null; dx may be null or dy itself (each thread reads its elements before
// it writes them). sums: ds, or partial sums (chunks, N, C) of several chunks; null: not wanted.
template <class T, int V>
__global__ __launch_bounds__(ChannelTiles::kThreads, 3) void scale_pool_backward_kernel(
    const T* x, const float* s, const T* dy, const float* dm, const int* argmax, T* dx, bool accumulate_dx,
    float* sums, bool accumulate_ds, int64_t hw, int64_t channels, int average) {
  await_launch_before();
  GM_SHARED(float, shared, [V * ChannelTiles::kThreads]);
  const int64_t n = blockIdx.x, c = tile_channel<V>();
  float sum[V] = {};
  if (c < channels) {
    float factor[V];
    load_lanes<float, V>(s + n * channels + c, factor);
    struct Held {
      RawLanes<T, V> dy, x;
      float mean, top;
      int at;
    };
    for_tile_pixels<Held, 3>(
        hw,
        [&](int q, Held& held) {
          const int64_t p = n * hw + q, i = p * channels + c;
          held.x.load(x + i);
          if (dy) held.dy.load(dy + i);
          if (dm) held.mean = dm[2 * p + average], held.top = dm[2 * p + 1 - average], held.at = argmax[p];
        },
        [&](int q, const Held& held) {
          float g[V] = {}, a[V];
          if (dy) held.dy.to_float(g);
          if (dm) {
            const float share = held.mean / static_cast<float>(channels);
#pragma unroll
            for (int k = 0; k < V; ++k) g[k] += share + (c + k == held.at ? held.top : 0.f);
          }
          held.x.to_float(a);
#pragma unroll
          for (int k = 0; k < V; ++k) {
            sum[k] += g[k] * a[k];
            g[k] *= factor[k];
          }
          if (dx) put_lanes<T, V>(dx + (n * hw + q) * channels + c, g, accumulate_dx);
        });
  }
  if (!sums) return;  // the same for all threads
  put_sums<V>(sum, shared, sums, accumulate_ds, channels);
}

void channel_scale_pool_forward(const OpCall& c) {
  const Shape& d = c.in[0].shape();
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    pixel_lanes_switch<T>(d[3], [&](auto lanes) {
      GM_LAUNCH((scale_pool_kernel<T, decltype(lanes)::value>), pixels_grid(d.pixels(), c.ctx),
                pixels_block(), 0, c.ctx.stream, c.in[0].as<T>(), c.in[1].as<float>(), c.out[0].as<T>(),
                c.out[1].as<float>(), c.saved[0] ? c.saved[0].as<int32_t>() : nullptr, d.pixels(),
                d[1] * d[2], d[3], average_place(c.attrs));
    });
  });
}

void channel_scale_pool_backward(const OpCall& c) {
  const GradView &gx = c.din[0], &gs = c.din[1];
  if (!gx && !gs) return;
  const Shape& d = c.in[0].shape();
  const ChannelTiles t = channel_tiles(c.in[0].spec);
  const int64_t count = d[0] * d[3];
  const float* dm = c.dout[1].as<float>();
  float* ds = gs ? gs.view.as<float>() : nullptr;
  const bool several = ds && t.chunks > 1, accumulate_ds = gs.mode == GradMode::accumulate;
  float* sums = several ? static_cast<float*>(c.workspace.data) : ds;
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    lanes_switch<T>(t, [&](auto lanes) {
      GM_LAUNCH((scale_pool_backward_kernel<T, decltype(lanes)::value>), tiles_grid(t, d[0]), tiles_block(t),
                0, c.ctx.stream, c.in[0].as<T>(), c.in[1].as<float>(), c.dout[0].as<T>(), dm,
                dm ? c.saved[0].as<int32_t>() : nullptr, gx ? gx.view.as<T>() : nullptr,
                gx.mode == GradMode::accumulate, sums, accumulate_ds && !several, d[1] * d[2], d[3],
                average_place(c.attrs));
    });
  });
  if (several) launch_sum_partials(sums, count, t.chunks, ds, accumulate_ds, c.ctx);
}

}  // namespace gm::GM_BACKEND_NS
