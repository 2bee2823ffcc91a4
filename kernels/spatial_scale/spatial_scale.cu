#include "kernels/spatial_scale/spatial_scale.h"

#include "kernels/common/op.h"
#include "kernels/common/pixel_warps.cuh"

namespace gm::GM_BACKEND_NS {

// Mapping of both passes: pixel_warps.cuh.
template <class T, int V>
__global__ void spatial_scale_kernel(const T* x, const float* m, T* y, int64_t pixels, int64_t channels) {
  await_launch_before();
  for_pixels(pixels, [&](int64_t p) {
    const float factor = m[p];
    using Held = RawLanes<T, V>;
    for_channels<V, Held>(
        channels, [&](int64_t c, Held& held) { held.load(x + p * channels + c); },
        [&](int64_t c, const Held& held) {
          float f[V];
          held.to_float(f);
#pragma unroll
          for (int k = 0; k < V; ++k) f[k] *= factor;
          store_lanes<T, V>(y + p * channels + c, f);
        });
  });
}

// x and dy are read once for both gradients. dx may be null, or dy itself (each lane reads its elements
// before it writes them); dm may be null.
template <class T, int V>
__global__ void spatial_scale_backward_kernel(const T* x, const float* m, const T* dy, T* dx,
                                              bool accumulate_dx, float* dm, bool accumulate_dm,
                                              int64_t pixels, int64_t channels) {
  await_launch_before();
  for_pixels(pixels, [&](int64_t p) {
    const float factor = m[p];
    float sum = 0;
    struct Held {
      RawLanes<T, V> dy, x;
    };
    for_channels<V, Held>(
        channels,
        [&](int64_t c, Held& held) {
          const int64_t i = p * channels + c;
          held.dy.load(dy + i);
          held.x.load(x + i);
        },
        [&](int64_t c, const Held& held) {
          float g[V], a[V];
          held.dy.to_float(g);
          held.x.to_float(a);
#pragma unroll
          for (int k = 0; k < V; ++k) {
            sum += g[k] * a[k];
            g[k] *= factor;
          }
          if (dx) put_lanes<T, V>(dx + p * channels + c, g, accumulate_dx);
        });
    sum = warp_sum(sum);
    if (dm && threadIdx.x == 0) dm[p] = accumulate_dm ? dm[p] + sum : sum;
  });
}

void spatial_scale_forward(const OpCall& c) {
  const int64_t channels = c.in[0].shape().channels(), pixels = c.in[0].shape().pixels();
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    pixel_lanes_switch<T>(channels, [&](auto lanes) {
      GM_LAUNCH((spatial_scale_kernel<T, decltype(lanes)::value>), pixels_grid(pixels, c.ctx), pixels_block(),
                0, c.ctx.stream, c.in[0].as<T>(), c.in[1].as<float>(), c.out[0].as<T>(), pixels, channels);
    });
  });
}

void spatial_scale_backward(const OpCall& c) {
  const GradView &gx = c.din[0], &gmap = c.din[1];
  if (!gx && !gmap) return;
  const int64_t channels = c.in[0].shape().channels(), pixels = c.in[0].shape().pixels();
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    pixel_lanes_switch<T>(channels, [&](auto lanes) {
      GM_LAUNCH((spatial_scale_backward_kernel<T, decltype(lanes)::value>), pixels_grid(pixels, c.ctx),
                pixels_block(), 0, c.ctx.stream, c.in[0].as<T>(), c.in[1].as<float>(), c.dout[0].as<T>(),
                gx ? gx.view.as<T>() : nullptr, gx.mode == GradMode::accumulate,
                gmap ? gmap.view.as<float>() : nullptr, gmap.mode == GradMode::accumulate, pixels, channels);
    });
  });
}

}  // namespace gm::GM_BACKEND_NS
