#include "kernels/global_avg_max_pool/global_avg_max_pool.h"

#include "kernels/common/channel_tiles.cuh"
#include "kernels/common/op.h"

namespace gm::GM_BACKEND_NS {

// Mapping: channel_tiles.h. A thread keeps sum and peak of its channels in registers, so that x is read once.
// argmax may be null (inference). avg, max, argmax: the results, or partial ones (chunks, N, C) of several
// chunks.
template <class T, int V>
__global__ void avg_max_kernel(const T* x, float* avg, float* max, int* argmax, int64_t hw, int64_t channels,
                               float factor) {
  await_launch_before();
  GM_SHARED(float, values, [V * ChannelTiles::kThreads]);
  GM_SHARED(int, places, [V * ChannelTiles::kThreads]);
  const int64_t n = blockIdx.x, c = tile_channel<V>();
  float sum[V] = {};
  Peak peak[V];
#pragma unroll
  for (int k = 0; k < V; ++k) peak[k] = {-INFINITY, static_cast<int>(hw)};
  if (c < channels) {
    using Held = RawLanes<T, V>;
    for_tile_pixels<Held>(
        hw, [&](int p, Held& held) { held.load(x + (n * hw + p) * channels + c); },
        [&](int p, const Held& held) {
          float f[V];
          held.to_float(f);
#pragma unroll
          for (int k = 0; k < V; ++k) {
            sum[k] += f[k];
            peak[k].meet(f[k], p);
          }
        });
  }
  sum_rows<V>(sum, values);
  __syncthreads();  // `values` is used again
  peak_rows<V>(peak, values, places);
  if (threadIdx.y == 0 && c < channels) {
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const int64_t i = (blockIdx.z * int64_t{gridDim.x} + n) * channels + c + k;
      avg[i] = sum[k] * factor;
      max[i] = peak[k].value;
      if (argmax) argmax[i] = peak[k].at;
    }
  }
}

// Second stage: one thread per (n, c), chunks in order.
__global__ void avg_max_finish_kernel(const float* sums, const float* values, const int* places, float* avg,
                                      float* max, int* argmax, int64_t count, int chunks, float factor) {
  await_launch_before();
  for_lanes<1>(count, [&](int64_t i, auto) {
    float sum = sums[i];
    Peak peak{values[i], places[i]};
    for (int k = 1; k < chunks; ++k) {
      sum += sums[k * count + i];
      peak.meet(values[k * count + i], places[k * count + i]);
    }
    avg[i] = sum * factor;
    max[i] = peak.value;
    if (argmax) argmax[i] = peak.at;
  });
}

void global_avg_max_pool_forward(const OpCall& c) {
  const Shape& s = c.in[0].shape();
  const int64_t hw = s[1] * s[2], channels = s[3], count = s[0] * channels;
  const ChannelTiles t = channel_tiles(c.in[0].spec);
  const bool several = t.chunks > 1;
  const float factor = 1.f / static_cast<float>(hw);
  float *avg = c.out[0].as<float>(), *max = c.out[1].as<float>();
  int* argmax = c.saved[0] ? c.saved[0].as<int32_t>() : nullptr;
  float *sums = several ? static_cast<float*>(c.workspace.data) : avg,
        *values = several ? sums + int64_t{t.chunks} * count : max;
  int* places = several ? reinterpret_cast<int*>(values + int64_t{t.chunks} * count) : argmax;
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    lanes_switch<T>(t, [&](auto lanes) {
      GM_LAUNCH((avg_max_kernel<T, decltype(lanes)::value>), tiles_grid(t, s[0]), tiles_block(t), 0,
                c.ctx.stream, c.in[0].as<T>(), sums, values, places, hw, channels, several ? 1.f : factor);
    });
  });
  if (several)
    GM_LAUNCH(avg_max_finish_kernel, flat_grid(count, 1, c.ctx), kFlatThreads, 0, c.ctx.stream, sums, values,
              places, avg, max, argmax, count, t.chunks, factor);
}

// A tiled pass that writes every pixel; both gradients and the arg-max of the thread's channels stay in
// registers. davg or dmax may be null.
template <class T, int V>
__global__ void avg_max_backward_kernel(const float* davg, const float* dmax, const int* argmax, T* dx,
                                        int64_t hw, int64_t channels, float factor, bool accumulate) {
  await_launch_before();
  const int64_t n = blockIdx.x, c = tile_channel<V>();
  if (c >= channels) return;
  float share[V] = {}, top[V] = {};
  int place[V];
  if (davg) load_lanes<float, V>(davg + n * channels + c, share);
  if (dmax) load_lanes<float, V>(dmax + n * channels + c, top);
#pragma unroll
  for (int k = 0; k < V; ++k) {
    share[k] *= factor;
    place[k] = dmax ? argmax[n * channels + c + k] : -1;
  }
  put_tile_pixels<T, V>(dx + n * hw * channels + c, hw, channels, accumulate, [&](int p, float(&f)[V]) {
#pragma unroll
    for (int k = 0; k < V; ++k) f[k] = share[k] + (place[k] == p ? top[k] : 0.f);
  });
}

void global_avg_max_pool_backward(const OpCall& c) {
  if (!c.din[0]) return;
  const TensorSpec& spec = c.din[0].view.spec;
  const int64_t hw = spec.shape[1] * spec.shape[2];
  const ChannelTiles t = channel_tiles(spec);
  const float* dmax = c.dout[1].as<float>();
  float_switch(spec.dtype, [&](auto zero) {
    using T = decltype(zero);
    lanes_switch<T>(t, [&](auto lanes) {
      GM_LAUNCH((avg_max_backward_kernel<T, decltype(lanes)::value>), tiles_grid(t, spec.shape[0]),
                tiles_block(t), 0, c.ctx.stream, c.dout[0].as<float>(), dmax,
                dmax ? c.saved[0].as<int32_t>() : nullptr, c.din[0].view.as<T>(), hw, spec.shape[3],
                1.f / static_cast<float>(hw), c.din[0].mode == GradMode::accumulate);
    });
  });
}

}  // namespace gm::GM_BACKEND_NS
