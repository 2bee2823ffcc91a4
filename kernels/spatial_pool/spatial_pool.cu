#include "kernels/spatial_pool/spatial_pool.h"

#include "kernels/common/op.h"
#include "kernels/common/pixel_warps.cuh"

namespace gm::GM_BACKEND_NS {

// Mapping of both passes: pixel_warps.cuh. argmax may be null (inference).
template <class T, int V>
__global__ void spatial_pool_kernel(const T* x, float* m, int* argmax, int64_t pixels, int64_t channels,
                                    int average) {
  await_launch_before();
  for_pixels(pixels, [&](int64_t p) {
    ChannelPool r;
    using Held = RawLanes<T, V>;
    for_channels<V, Held>(
        channels, [&](int64_t c, Held& held) { held.load(x + p * channels + c); },
        [&](int64_t c, const Held& held) {
          float f[V];
          held.to_float(f);
#pragma unroll
          for (int k = 0; k < V; ++k) r.add(f[k], c + k);
        });
    r.join();
    if (threadIdx.x == 0) {
      m[2 * p + average] = r.sum / static_cast<float>(channels);
      m[2 * p + 1 - average] = r.peak.value;
      if (argmax) argmax[p] = r.peak.at;
    }
  });
}

template <class T, int V>
__global__ void spatial_pool_backward_kernel(const float* dm, const int* argmax, T* dx, int64_t pixels,
                                             int64_t channels, int average, bool accumulate) {
  await_launch_before();
  for_pixels(pixels, [&](int64_t p) {
    const float share = dm[2 * p + average] / static_cast<float>(channels),
                top = dm[2 * p + 1 - average] + share;
    const int at = argmax[p];
    using Held = RawLanes<T, V>;
    for_channels<V, Held>(
        channels,
        [&](int64_t c, Held& held) {
          if (accumulate) held.load(dx + p * channels + c);
        },
        [&](int64_t c, const Held& held) {
          float f[V];
#pragma unroll
          for (int k = 0; k < V; ++k) f[k] = c + k == at ? top : share;
          put_lanes<T, V>(dx + p * channels + c, f, accumulate, held);
        });
  });
}

void spatial_pool_forward(const OpCall& c) {
  const int64_t channels = c.in[0].shape().channels(), pixels = c.in[0].shape().pixels();
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    pixel_lanes_switch<T>(channels, [&](auto lanes) {
      GM_LAUNCH((spatial_pool_kernel<T, decltype(lanes)::value>), pixels_grid(pixels, c.ctx), pixels_block(),
                0, c.ctx.stream, c.in[0].as<T>(), c.out[0].as<float>(),
                c.saved[0] ? c.saved[0].as<int32_t>() : nullptr, pixels, channels, average_place(c.attrs));
    });
  });
}

void spatial_pool_backward(const OpCall& c) {
  if (!c.din[0]) return;
  const View& dx = c.din[0].view;
  const int64_t channels = dx.shape().channels(), pixels = dx.shape().pixels();
  float_switch(dx.dtype(), [&](auto zero) {
    using T = decltype(zero);
    pixel_lanes_switch<T>(channels, [&](auto lanes) {
      GM_LAUNCH((spatial_pool_backward_kernel<T, decltype(lanes)::value>), pixels_grid(pixels, c.ctx),
                pixels_block(), 0, c.ctx.stream, c.dout[0].as<float>(), c.saved[0].as<int32_t>(), dx.as<T>(),
                pixels, channels, average_place(c.attrs), c.din[0].mode == GradMode::accumulate);
    });
  });
}

}  // namespace gm::GM_BACKEND_NS
