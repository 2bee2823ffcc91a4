#include "kernels/global_pool/global_pool.h"

#include "kernels/common/channel_tiles.cuh"
#include "kernels/common/op.h"

namespace gm::GM_BACKEND_NS {

// ---- average. Mapping: channel_tiles.h. out: y, or the partial sums (chunks, N, C) of several chunks.
template <class T, int V>
__global__ void pool_average_kernel(const T* x, float* out, int64_t hw, int64_t channels, float factor) {
  await_launch_before();
  GM_SHARED(float, shared, [V * ChannelTiles::kThreads]);
  const int64_t n = blockIdx.x, c = tile_channel<V>();
  float sum[V] = {};
  if (c < channels) {
    using Held = RawLanes<T, V>;
    for_tile_pixels<Held>(
        hw, [&](int p, Held& held) { held.load(x + (n * hw + p) * channels + c); },
        [&](int, const Held& held) {
          float f[V];
          held.to_float(f);
#pragma unroll
          for (int k = 0; k < V; ++k) sum[k] += f[k];
        });
  }
  sum_rows<V>(sum, shared);
  if (threadIdx.y == 0 && c < channels) {
#pragma unroll
    for (int k = 0; k < V; ++k)
      out[(blockIdx.z * int64_t{gridDim.x} + n) * channels + c + k] = sum[k] * factor;
  }
}

// Second stage: one thread per (n, c), chunks in order.
__global__ void pool_average_finish_kernel(const float* partial, float* y, int64_t count, int chunks,
                                           float factor) {
  await_launch_before();
  for_lanes<1>(count, [&](int64_t i, auto) {
    float sum = 0;
    for (int k = 0; k < chunks; ++k) sum += partial[k * count + i];
    y[i] = sum * factor;
  });
}

// ---- maximum

// argmax may be null (inference). out and argmax: the results, or the partial ones of several chunks.
template <class T, int V>
__global__ void pool_maximum_kernel(const T* x, float* out, int* argmax, int64_t hw, int64_t channels) {
  await_launch_before();
  constexpr int kThreads = ChannelTiles::kThreads;
  GM_SHARED(float, values, [V * kThreads]);
  GM_SHARED(int, places, [V * kThreads]);
  const int64_t n = blockIdx.x, c = tile_channel<V>();
  Peak peak[V];
#pragma unroll
  for (int k = 0; k < V; ++k) peak[k] = {-INFINITY, 0};  // NaN alone has its place in the image too
  if (c < channels) {
    using Held = RawLanes<T, V>;
    for_tile_pixels<Held>(
        hw, [&](int p, Held& held) { held.load(x + (n * hw + p) * channels + c); },
        [&](int p, const Held& held) {
          float f[V];
          held.to_float(f);
#pragma unroll
          for (int k = 0; k < V; ++k) peak[k].meet(f[k], p);
        });
  }
  peak_rows<V>(peak, values, places);
  if (threadIdx.y == 0 && c < channels) {
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const int64_t i = (blockIdx.z * int64_t{gridDim.x} + n) * channels + c + k;
      out[i] = peak[k].value;
      if (argmax) argmax[i] = peak[k].at;
    }
  }
}

__global__ void pool_maximum_finish_kernel(const float* values, const int* places, float* y, int* argmax,
                                           int64_t count, int chunks) {
  await_launch_before();
  for_lanes<1>(count, [&](int64_t i, auto) {
    Peak peak{values[i], places[i]};
    for (int k = 1; k < chunks; ++k) peak.meet(values[k * count + i], places[k * count + i]);
    y[i] = peak.value;
    if (argmax) argmax[i] = peak.at;
  });
}

void global_pool_forward(const OpCall& c) {
  const Shape& s = c.in[0].shape();
  const int64_t hw = s[1] * s[2], channels = s[3], count = s[0] * channels;
  const ChannelTiles t = channel_tiles(c.in[0].spec);
  const bool max = pool_kind(c.attrs) == PoolKind::maximum, several = t.chunks > 1;
  const float factor = 1.f / static_cast<float>(hw);
  float* y = c.out[0].as<float>();
  int* argmax = max && c.saved[0] ? c.saved[0].as<int32_t>() : nullptr;
  float* partial = static_cast<float*>(c.workspace.data);
  int* places = reinterpret_cast<int*>(partial + int64_t{t.chunks} * count);
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* x = c.in[0].as<T>();
    lanes_switch<T>(t, [&](auto lanes) {
      constexpr int V = decltype(lanes)::value;
      if (max)
        GM_LAUNCH((pool_maximum_kernel<T, V>), tiles_grid(t, s[0]), tiles_block(t), 0, c.ctx.stream, x,
                  several ? partial : y, several ? places : argmax, hw, channels);
      else
        GM_LAUNCH((pool_average_kernel<T, V>), tiles_grid(t, s[0]), tiles_block(t), 0, c.ctx.stream, x,
                  several ? partial : y, hw, channels, several ? 1.f : factor);
    });
  });
  if (!several) return;
  if (max)
    GM_LAUNCH(pool_maximum_finish_kernel, flat_grid(count, 1, c.ctx), kFlatThreads, 0, c.ctx.stream, partial,
              places, y, argmax, count, t.chunks);
  else
    GM_LAUNCH(pool_average_finish_kernel, flat_grid(count, 1, c.ctx), kFlatThreads, 0, c.ctx.stream, partial,
              y, count, t.chunks, factor);
}

// ---- backward: a tiled pass that writes every pixel; dy (and the arg-max) of the thread's channels stay in
// registers. argmax null: average.
template <class T, int V>
__global__ void pool_backward_kernel(const float* dy, const int* argmax, T* dx, int64_t hw, int64_t channels,
                                     float factor, bool accumulate) {
  await_launch_before();
  const int64_t n = blockIdx.x, c = tile_channel<V>();
  if (c >= channels) return;
  float g[V];
  int place[V];
  load_lanes<float, V>(dy + n * channels + c, g);
#pragma unroll
  for (int k = 0; k < V; ++k) {
    g[k] *= factor;
    place[k] = argmax ? argmax[n * channels + c + k] : -1;
  }
  put_tile_pixels<T, V>(dx + n * hw * channels + c, hw, channels, accumulate, [&](int p, float(&f)[V]) {
#pragma unroll
    for (int k = 0; k < V; ++k) f[k] = !argmax || place[k] == p ? g[k] : 0.f;
  });
}

// Accumulating the maximum's gradient touches one pixel per (n, c): one thread each.
template <class T>
__global__ void pool_scatter_kernel(const float* dy, const int* argmax, T* dx, int64_t count, int64_t hw,
                                    int64_t channels) {
  await_launch_before();
  for_lanes<1>(count, [&](int64_t i, auto) {
    T* d = dx + (i / channels * hw + argmax[i]) * channels + i % channels;
    *d = from_float<T>(to_float(*d) + dy[i]);
  });
}

void global_pool_backward(const OpCall& c) {
  if (!c.din[0]) return;
  const TensorSpec& spec = c.din[0].view.spec;
  const Shape& s = spec.shape;
  const int64_t hw = s[1] * s[2], channels = s[3], count = s[0] * channels;
  const bool max = pool_kind(c.attrs) == PoolKind::maximum,
             accumulate = c.din[0].mode == GradMode::accumulate;
  const float factor = max ? 1.f : 1.f / static_cast<float>(hw);
  const float* dy = c.dout[0].as<float>();
  const int* argmax = max ? c.saved[0].as<int32_t>() : nullptr;
  float_switch(spec.dtype, [&](auto zero) {
    using T = decltype(zero);
    T* dx = c.din[0].view.as<T>();
    if (max && accumulate) {
      GM_LAUNCH(pool_scatter_kernel<T>, flat_grid(count, 1, c.ctx), kFlatThreads, 0, c.ctx.stream, dy, argmax,
                dx, count, hw, channels);
      return;
    }
    const ChannelTiles t = channel_tiles(spec);
    lanes_switch<T>(t, [&](auto lanes) {
      GM_LAUNCH((pool_backward_kernel<T, decltype(lanes)::value>), tiles_grid(t, s[0]), tiles_block(t), 0,
                c.ctx.stream, dy, argmax, dx, hw, channels, factor, accumulate);
    });
  });
}

}  // namespace gm::GM_BACKEND_NS
