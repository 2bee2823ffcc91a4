#include "kernels/mbconv/mbconv.h"

#include "kernels/mbconv/mbconv_products.cuh"

// One kernel for blocks without squeeze-and-excitation. With it the gate needs the whole map: `front` stores
// d and its sums, `back` forms the gate (every tile for itself: the wide blocks have few) and projects.

namespace gm::GM_BACKEND_NS {

namespace {

enum class MbPart { whole, front, back };

/// Weights of the first two convolutions for channels [first, first + count), zeros up to the chunk.
template <class T>
__device__ __forceinline__ void mb_load_weights(const MbProblem& g, const MbTensors<T>& t, int first,
                                                int count, const MbParts<T>& at) {
  const int chunk = g.p.chunk, taps = g.kernel * g.kernel;
  if (g.expand) {
    const int pitch = mb_pitch<T>(g.in_channels);
    mb_load(t.w_expand + int64_t{first} * g.in_channels, g.in_channels, count, g.in_channels, chunk,
            mb_deep<T>(g.in_channels), at.w_expand, [=](int r) { return r * pitch; });
    mb_load(t.b_expand + first, 0, 1, count, 1, chunk, at.bias, [](int) { return 0; });
  }
  mb_load(t.w_depthwise + first, g.expanded, taps, count, taps, chunk, at.w_depthwise,
          [=](int r) { return r * chunk; });
  mb_load(t.b_depthwise + first, 0, 1, count, 1, chunk, at.bias + chunk, [](int) { return 0; });
}

/// w_project's columns of the chunk.
template <class T>
__device__ __forceinline__ void mb_load_projection(const MbProblem& g, const T* w, int first, int count,
                                                   T* to) {
  const int pitch = mb_pitch<T>(g.p.chunk);
  mb_load(w + first, g.expanded, g.out_channels, count, g.out_channels, g.p.chunk, to,
          [=](int r) { return r * pitch; });
}

/// d of the chunk to memory, and its sums over the pixels of the tile, one thread a channel.
template <class T>
__device__ __forceinline__ void mb_store_chunk(const MbProblem& g, const MbTile& t, const MbTensors<T>& to,
                                               int first, int count, const T* d) {
  const int pitch = mb_pitch<T>(g.p.chunk), c = static_cast<int>(threadIdx.x);
  T* out = to.d + t.output(g, g.expanded) + first;
  auto walk = [&](auto lanes) {
    constexpr int V = decltype(lanes)::value;
    const int across = count / V;
    for (int i = static_cast<int>(threadIdx.x); i < t.out_pixels * across; i += kMbThreads) {
      const int p = i / across, k = (i - p * across) * V;
      float f[V];
      load_lanes<T, V>(d + p * pitch + k, f);
      store_lanes<T, V>(out + int64_t{p} * g.expanded + k, f);
    }
  };
  if ((count | g.expanded) % kVecLanes<T> == 0)
    walk(Lanes<kVecLanes<T>>{});
  else
    walk(Lanes<1>{});
  if (c >= count) return;
  float sum = 0.f;
  for (int p = 0; p < t.out_pixels; ++p) sum += to_float(d[p * pitch + c]);
  to.pooled[int64_t{blockIdx.x} * g.expanded + first + c] = sum;
}

/// The gate of the tile's image: [E] floats in shared memory between the pooled means and the narrow layer.
template <class T>
__device__ __forceinline__ const float* mb_gate(const MbProblem& g, const MbTile& t, const MbTensors<T>& from,
                                                float* pooled) {
  float *gate = pooled + g.expanded, *narrow = gate + g.expanded;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  const float* sums = from.pooled + int64_t{t.image} * g.p.row_tiles * g.expanded;
  for (int c = thread; c < g.expanded; c += kMbThreads) {
    float sum = 0.f;
    for (int r = 0; r < g.p.row_tiles; ++r) sum += sums[int64_t{r} * g.expanded + c];
    pooled[c] = sum / static_cast<float>(g.out_height * g.out_width);
  }
  __syncthreads();
  for (int s = thread / 32; s < g.squeeze; s += kMbThreads / 32) {
    float sum = 0.f;
    for (int c = lane; c < g.expanded; c += 32)
      sum += pooled[c] * from.w_squeeze[int64_t{s} * g.expanded + c];
    sum = warp_sum(sum);
    if (lane == 0) narrow[s] = act_value_any<float>(g.act, sum + (from.b_squeeze ? from.b_squeeze[s] : 0.f));
  }
  __syncthreads();
  for (int c = thread; c < g.expanded; c += kMbThreads) {
    float sum = from.b_excite ? from.b_excite[c] : 0.f;
    for (int s = 0; s < g.squeeze; ++s) sum += narrow[s] * from.w_excite[int64_t{c} * g.squeeze + s];
    gate[c] = precise_sigmoid(sum);
  }
  __syncthreads();
  return gate;
}

/// V neighbouring f32 values, by 16-byte stores for V > 1.
template <int V>
__device__ __forceinline__ void store_floats(float* p, const float (&f)[V]) {
  constexpr int N = V == 1 ? 1 : 4;
#pragma unroll
  for (int k = 0; k < V; k += N) {
    float part[N];
#pragma unroll
    for (int j = 0; j < N; ++j) part[j] = f[k + j];
    store_lanes<float, N>(p + k, part);
  }
}

/// The tile of y from its sums in shared memory, or this group's share of it.
template <class T>
__device__ __forceinline__ void mb_store_output(const MbProblem& g, const MbTile& t, const MbTensors<T>& to,
                                                int pixels, const float* y) {
  const int64_t at = t.output(g, g.out_channels);
  auto walk = [&](auto lanes) {
    constexpr int V = decltype(lanes)::value;
    for (int i = static_cast<int>(threadIdx.x) * V; i < pixels * g.out_channels; i += kMbThreads * V) {
      float f[V];
      load_lanes<float, V>(y + i, f);
      if (to.partial) {
        float* partial =
            to.partial + int64_t{blockIdx.y} * g.images * g.out_height * g.out_width * g.out_channels;
        store_floats<V>(partial + at + i, f);
        continue;
      }
      float bias[V], x[V];
      load_lanes<float, V>(to.b_project + i % g.out_channels, bias);
      if (g.residual) load_lanes<T, V>(to.x + at + i, x);
#pragma unroll
      for (int k = 0; k < V; ++k) f[k] += bias[k] + (g.residual ? x[k] : 0.f);
      store_lanes<T, V>(to.y + at + i, f);
    }
  };
  if (g.out_channels % kVecLanes<T> == 0)
    walk(Lanes<kVecLanes<T>>{});
  else
    walk(Lanes<1>{});
}

// grid (tiles, groups), kMbThreads threads. A: items of the projection that a thread or warp keeps.
template <class T, MbPart P, int A>
__global__ __launch_bounds__(kMbThreads, 2) void mbconv_kernel(MbProblem g, MbTensors<T> t) {
  await_launch_before();
  GM_DYN_SHARED(unsigned char, shared);
  const MbParts<T> at(g.p, shared);
  const MbTile tile(g);
  const int pixels = tile.images * tile.out_pixels, pitch = mb_pitch<T>(g.p.chunk);
  const int begin = static_cast<int>(blockIdx.y) * g.per_group, end = min(begin + g.per_group, g.p.chunks);
  typename MbProduct<T>::Sums sum[A] = {};
  const float* gate = nullptr;
  if constexpr (P == MbPart::back) {
    gate = mb_gate(g, tile, t, at.gate);
  } else {
    constexpr int V = kVecLanes<T>;
    for (int i = static_cast<int>(threadIdx.x) * V; i < tile.images * g.in_rows * g.border_width * g.p.chunk;
         i += kMbThreads * V)
      Vec<T, V>{}.store(at.e + i);
    if (g.expand) {
      mb_load_input(g, tile, t.x, at.x);
    } else {
      __syncthreads();  // the pixels of the first chunk go between the zeros
    }
  }
  for (int chunk = begin; chunk < end; ++chunk) {
    const int first = chunk * g.p.chunk, count = min(g.p.chunk, g.expanded - first);
    if constexpr (P == MbPart::back) {
      __syncthreads();
      mb_load_projection(g, t.w_project, first, count, at.w_project);
      mb_load(t.d + tile.output(g, g.expanded) + first, g.expanded, pixels, count, pixels, g.p.chunk, at.d,
              [=](int p) { return p * pitch; });
      __syncthreads();
      for (int i = static_cast<int>(threadIdx.x); i < pixels * count; i += kMbThreads) {
        T& d = at.d[i / count * pitch + i % count];
        d = from_float<T>(to_float(d) * gate[first + i % count]);
      }
      __syncthreads();
    } else {
      mb_load_weights(g, t, first, count, at);
      if (g.expand) {
        __syncthreads();
        mb_expand(g, tile, count, at);
      } else {
        for (int i = 0; i < tile.images; ++i)
          mb_load(t.x + ((int64_t{tile.image} + i) * g.height + tile.low) * g.width * g.in_channels + first,
                  g.in_channels, tile.in_pixels, count, tile.in_pixels, g.p.chunk, at.e,
                  [&](int p) { return tile.bordered(g, p + i * tile.in_pixels) * g.p.chunk; });
      }
      __syncthreads();
      if constexpr (P == MbPart::whole) {
        mb_load_projection(g, t.w_project, first, count, at.w_project);
      }
      mb_depthwise_any(g, tile, count, at);
      __syncthreads();
      if constexpr (P == MbPart::front) {
        mb_store_chunk(g, tile, t, first, count, at.d);
      }
    }
    if constexpr (P != MbPart::front) {
      mb_project<T, A>(g, pixels, count, at, sum);
    }
  }
  if constexpr (P != MbPart::front) {
    __syncthreads();
    mb_put_sums<T, A>(g, pixels, sum, at.y);
    __syncthreads();
    mb_store_output(g, tile, t, pixels, at.y);
  }
}

// y from the sums of the groups, added in order.
template <class T, int V>
__global__ void mbconv_sum_kernel(MbTensors<T> t, int64_t n, int groups, int channels, bool residual) {
  await_launch_before();
  for_lanes<V>(n, [&](int64_t i, auto lanes) {
    constexpr int L = decltype(lanes)::value;
    float f[L], more[L];
    load_lanes<float, L>(t.b_project + i % channels, f);
#pragma unroll 8
    for (int k = 0; k < groups; ++k) {
      load_lanes<float, L>(t.partial + k * n + i, more);
#pragma unroll
      for (int j = 0; j < L; ++j) f[j] += more[j];
    }
    if (residual) {
      load_lanes<T, L>(t.x + i, more);
#pragma unroll
      for (int j = 0; j < L; ++j) f[j] += more[j];
    }
    store_lanes<T, L>(t.y + i, f);
  });
}

template <class T, MbPart P>
void launch(const MbProblem& g, const MbTensors<T>& t, int groups, const Context& ctx) {
  const dim3 grid(static_cast<unsigned>(g.p.tiles()), static_cast<unsigned>(groups));
  auto with = [&](auto sums) {
    GM_LAUNCH((mbconv_kernel<T, P, decltype(sums)::value>), grid, kMbThreads, g.p.shared_bytes(), ctx.stream,
              g, t);
  };
  if (P == MbPart::front || g.p.sums == 1) return with(Lanes<1>{});
  if constexpr (P != MbPart::front) {
    if (g.p.sums == 2) return with(Lanes<2>{});
    if (g.p.sums == 3) return with(Lanes<3>{});
    if constexpr (MbUnit<T>::kMostSums > 3) {
      with(Lanes<4>{});
    }
  }
}

template <class T>
void forward(const OpCall& c, const MbconvShape& s, const MbconvPlan& plan) {
  const MbProblem g(s, plan);
  const bool split = plan.groups > 1 && !s.squeeze;
  auto floats = [&](size_t i) { return i < c.in.size() ? c.in[i].as<float>() : nullptr; };
  char* workspace = static_cast<char*>(c.workspace.data);
  const MbTensors<T> t{.x = c.in[0].as<T>(),
                       .w_expand = c.in[1].as<T>(),
                       .b_expand = floats(2),
                       .w_depthwise = c.in[3].as<T>(),
                       .b_depthwise = floats(4),
                       .w_project = c.in[5].as<T>(),
                       .b_project = floats(6),
                       .w_squeeze = floats(7),
                       .b_squeeze = floats(8),
                       .w_excite = floats(9),
                       .b_excite = floats(10),
                       .y = c.out[0].as<T>(),
                       .partial = split ? reinterpret_cast<float*>(workspace) : nullptr,
                       .d = reinterpret_cast<T*>(workspace),
                       .pooled = reinterpret_cast<float*>(workspace + mb_gpu_workspace(s, plan).pooled)};
  if (s.squeeze) {
    launch<T, MbPart::front>(g, t, plan.groups, c.ctx);
    MbProblem back = g;
    back.per_group = plan.chunks;
    return launch<T, MbPart::back>(back, t, 1, c.ctx);
  }
  launch<T, MbPart::whole>(g, t, plan.groups, c.ctx);
  if (!split) return;
  const int64_t n = s.images() * s.out_image();
  auto sum = [&](auto lanes) {
    constexpr int V = decltype(lanes)::value;
    GM_LAUNCH((mbconv_sum_kernel<T, V>), flat_grid(n, V, c.ctx), kFlatThreads, 0, c.ctx.stream, t, n,
              plan.groups, static_cast<int>(s.out_channels), s.residual);
  };
  if (n < (1 << 17)) return sum(Lanes<1>{});  // few elements: threads rather than vectors
  pixel_lanes_switch<T>(s.out_channels, sum);
}
}  // namespace

/// By a given plan, so that tests can try all of them.
void mbconv_planned(const OpCall& c, const MbconvPlan& plan) {
  const MbconvShape s = mbconv_shape(c.attrs, c.in);
  float_switch(s.dtype, [&](auto zero) { forward<decltype(zero)>(c, s, plan); });
}

void mbconv_forward(const OpCall& c) {
  const MbconvShape s = mbconv_shape(c.attrs, c.in);
  const std::optional<MbconvPlan> plan = mbconv_plan(s);
  if (!plan)
    fail("mbconv: " + c.in[0].spec.str() + " to " + s.output().str() + " does not fit in shared memory");
  mbconv_planned(c, *plan);
}

}  // namespace gm::GM_BACKEND_NS
