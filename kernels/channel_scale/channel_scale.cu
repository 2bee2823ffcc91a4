#include "kernels/channel_scale/channel_scale.h"

#include "kernels/common/channel_tiles.cuh"
#include "kernels/common/op.h"

namespace gm::GM_BACKEND_NS {

// Mapping of both passes: channel_tiles.h. A thread keeps the factors of its channels in registers. Forward
// takes so few of them that a multiprocessor is full of threads, and one pixel of each under way is enough.
template <class T, int V>
__global__ void channel_scale_forward_kernel(const T* x, const float* s, T* y, int64_t hw, int64_t channels) {
  await_launch_before();
  const int64_t n = blockIdx.x, c = tile_channel<V>();
  if (c >= channels) return;
  float factor[V];
  load_lanes<float, V>(s + n * channels + c, factor);
  using Held = RawLanes<T, V>;
  for_tile_pixels<Held, 1>(
      hw, [&](int p, Held& held) { held.load(x + (n * hw + p) * channels + c); },
      [&](int p, const Held& held) {
        float f[V];
        held.to_float(f);
#pragma unroll
        for (int k = 0; k < V; ++k) f[k] *= factor[k];
        store_lanes<T, V>(y + (n * hw + p) * channels + c, f);
      });
}

// x and dy are read once for both gradients. dx may be null, or dy itself (each thread reads its elements
// before it writes them). sums: ds, or partial sums (chunks, N, C) of several chunks; null: not wanted.
template <class T, int V>
__global__ void channel_scale_backward_kernel(const T* x, const float* s, const T* dy, T* dx,
                                              bool accumulate_dx, float* sums, bool accumulate_ds, int64_t hw,
                                              int64_t channels) {
  await_launch_before();
  GM_SHARED(float, shared, [V * ChannelTiles::kThreads]);
  const int64_t n = blockIdx.x, c = tile_channel<V>();
  float sum[V] = {};
  if (c < channels) {
    float factor[V];
    load_lanes<float, V>(s + n * channels + c, factor);
    struct Held {
      RawLanes<T, V> dy, x;
    };
    for_tile_pixels<Held, 3>(
        hw,
        [&](int p, Held& held) {
          const int64_t i = (n * hw + p) * channels + c;
          held.dy.load(dy + i);
          if (sums) held.x.load(x + i);
        },
        [&](int p, const Held& held) {
          float g[V];
          held.dy.to_float(g);
          if (sums) {
            float a[V];
            held.x.to_float(a);
#pragma unroll
            for (int k = 0; k < V; ++k) sum[k] += g[k] * a[k];
          }
          if (dx) {
#pragma unroll
            for (int k = 0; k < V; ++k) g[k] *= factor[k];
            put_lanes<T, V>(dx + (n * hw + p) * channels + c, g, accumulate_dx);
          }
        });
  }
  if (!sums) return;  // the same for all threads
  put_sums<V>(sum, shared, sums, accumulate_ds, channels);
}

void channel_scale_forward(const OpCall& c) {
  const Shape& d = c.in[0].shape();
  const ChannelTiles t = channel_tiles(c.in[0].spec);
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    lanes_switch<T>(t, [&](auto lanes) {
      GM_LAUNCH((channel_scale_forward_kernel<T, decltype(lanes)::value>), tiles_grid(t, d[0]),
                tiles_block(t), 0, c.ctx.stream, c.in[0].as<T>(), c.in[1].as<float>(), c.out[0].as<T>(),
                d[1] * d[2], d[3]);
    });
  });
}

void channel_scale_backward(const OpCall& c) {
  const GradView &gx = c.din[0], &gs = c.din[1];
  if (!gx && !gs) return;
  const Shape& d = c.in[0].shape();
  const ChannelTiles t = channel_tiles(c.in[0].spec);
  const int64_t count = d[0] * d[3];
  const bool accumulate_dx = gx.mode == GradMode::accumulate, accumulate_ds = gs.mode == GradMode::accumulate;
  float* ds = gs ? gs.view.as<float>() : nullptr;
  const bool several = ds && t.chunks > 1;
  float* sums = several ? static_cast<float*>(c.workspace.data) : ds;
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    lanes_switch<T>(t, [&](auto lanes) {
      GM_LAUNCH((channel_scale_backward_kernel<T, decltype(lanes)::value>), tiles_grid(t, d[0]),
                tiles_block(t), 0, c.ctx.stream, c.in[0].as<T>(), c.in[1].as<float>(), c.dout[0].as<T>(),
                gx ? gx.view.as<T>() : nullptr, accumulate_dx, sums, accumulate_ds && !several, d[1] * d[2],
                d[3]);
    });
  });
  if (several) launch_sum_partials(sums, count, t.chunks, ds, accumulate_ds, c.ctx);
}

}  // namespace gm::GM_BACKEND_NS
