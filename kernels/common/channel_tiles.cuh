// Device half of channel_tiles.h: where a thread stands, and the fixed-order sum over the rows of a block.
#pragma once
#include "kernels/common/act.cuh"
#include "kernels/common/channel_tiles.h"
#include "kernels/common/flat.cuh"
#include "kernels/common/partials.cuh"
#include "kernels/common/reduce.cuh"

namespace gm::GM_BACKEND_NS {

/// Launch shape of a tiled pass over images of x.
inline dim3 tiles_grid(const ChannelTiles& t, int64_t n) {
  return dim3(static_cast<unsigned>(n), static_cast<unsigned>(t.slices), static_cast<unsigned>(t.chunks));
}
inline dim3 tiles_block(const ChannelTiles& t) {
  return dim3(static_cast<unsigned>(t.width), static_cast<unsigned>(t.rows));
}

/// First channel of this thread; >= C for threads past the last channel, which must still meet the barriers.
template <int V>
__device__ __forceinline__ int64_t tile_channel() {
  return (blockIdx.y * int64_t{blockDim.x} + threadIdx.x) * V;
}
/// Pixels of this thread, as in_batches. R: 7 are all that 8 rows of threads have of 49.
template <class Held, int R = 7, class Load, class Use>
__device__ __forceinline__ void for_tile_pixels(int64_t hw, Load load, Use use) {
  in_batches<Held, R>(static_cast<int>(blockIdx.z * blockDim.y + threadIdx.y),
                      static_cast<int>(gridDim.z * blockDim.y), static_cast<int>(hw), load, use);
}

/// Writes, or adds, what value(p, f) puts into f to each pixel p of this thread. to: its image and channels.
template <class T, int V, class Value>
__device__ __forceinline__ void put_tile_pixels(T* to, int64_t hw, int64_t channels, bool accumulate,
                                                Value value) {
  using Held = RawLanes<T, V>;
  for_tile_pixels<Held>(
      hw,
      [&](int p, Held& held) {
        if (accumulate) held.load(to + p * channels);
      },
      [&](int p, const Held& held) {
        float f[V];
        value(p, f);
        put_lanes<T, V>(to + p * channels, f, accumulate, held);
      });
}

/// Sums over the threads with the same threadIdx.x, pairwise; the result is valid in row 0. Every thread must
/// call. shared: V * ChannelTiles::kThreads floats, one plane per lane so that neighbours hit other banks.
template <int V>
__device__ __forceinline__ void sum_rows(float (&v)[V], float* shared) {
  constexpr int kThreads = ChannelTiles::kThreads;
  const int at = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
#pragma unroll
  for (int k = 0; k < V; ++k) shared[k * kThreads + at] = v[k];
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y < half) {
#pragma unroll
      for (int k = 0; k < V; ++k) {
        v[k] += shared[k * kThreads + at + half * blockDim.x];
        shared[k * kThreads + at] = v[k];
      }
    }
  }
}

/// What a backward pass ends with: adds the sums of a block's threads and writes those of its image and
/// chunk. sums: (N, C), or partial sums (chunks, N, C) of several chunks, for launch_sum_partials. Every
/// thread must call; shared: see sum_rows.
template <int V>
__device__ __forceinline__ void put_sums(float (&v)[V], float* shared, float* sums, bool accumulate,
                                         int64_t channels) {
  const int64_t c = tile_channel<V>();
  sum_rows<V>(v, shared);
  if (threadIdx.y != 0 || c >= channels) return;
#pragma unroll
  for (int k = 0; k < V; ++k) {
    float* to = sums + (blockIdx.z * int64_t{gridDim.x} + blockIdx.x) * channels + c + k;
    *to = accumulate ? *to + v[k] : v[k];
  }
}

/// The same over the rows of a block as sum_rows: valid in row 0, every thread must call. values, places: as
/// the scratch of sum_rows.
template <int V>
__device__ __forceinline__ void peak_rows(Peak (&peak)[V], float* values, int* places) {
  constexpr int kThreads = ChannelTiles::kThreads;
  const int at = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
#pragma unroll
  for (int k = 0; k < V; ++k)
    values[k * kThreads + at] = peak[k].value, places[k * kThreads + at] = peak[k].at;
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y < half) {
      const int other = at + static_cast<int>(half * blockDim.x);
#pragma unroll
      for (int k = 0; k < V; ++k) {
        peak[k].meet(values[k * kThreads + other], places[k * kThreads + other]);
        values[k * kThreads + at] = peak[k].value, places[k * kThreads + at] = peak[k].at;
      }
    }
  }
}

/// Calls f with Lanes<V> for the vector width of the plan.
template <class T, class F>
void lanes_switch(const ChannelTiles& t, F&& f) {
  if (t.lanes == 1) return f(Lanes<1>{});
  f(Lanes<kVecLanes<T>>{});
}

}  // namespace gm::GM_BACKEND_NS
