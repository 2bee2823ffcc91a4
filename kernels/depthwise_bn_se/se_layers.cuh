// The two layers of squeeze-and-excitation on the GPU, f32: three launches instead of twelve library calls,
// each of which would take longer to start than to run.
//   forward, gradient   a block takes one image: its rows of both layers fit in shared memory; the weights,
//                       which all blocks read, come from L2
//   weights             both weight gradients, sums over the images, as tiles of 32 x 32
// Every sum has a fixed order: of a thread's terms, then of lanes or rows of threads.
#pragma once
#include "kernels/batch_norm/bn.cuh"
#include "kernels/common/act_any.cuh"
#include "kernels/common/reduce.cuh"
#include "kernels/depthwise_bn_se/depthwise_bn_se.h"

namespace gm::GM_BACKEND_NS {

constexpr int kSeThreads = 1024, kSeWarps = kSeThreads / 32, kSeTile = 32;

/// gate = sigmoid(w_excite act(w_squeeze p + b_squeeze) + b_excite) of one image a block; p: the sum of
/// `parts` of pooled, times `scale`. L: 4 when channels and squeeze are multiples of it, else 1. squeezed,
/// acted and excited are null where nobody asks for them. Shared memory: channels + squeeze floats.
template <int L>
__global__ __launch_bounds__(kSeThreads) void se_forward_kernel(const float* pooled, int parts, float scale,
                                                                const float* w_squeeze,
                                                                const float* b_squeeze, const float* w_excite,
                                                                const float* b_excite, float* squeezed,
                                                                float* acted, float* excited, float* gate,
                                                                int channels, int squeeze, Act act) {
  GM_DYN_SHARED(float, p);
  float* const h = p + channels;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int64_t image = blockIdx.x;
  for (int c = thread; c < channels; c += kSeThreads) {
    const float* from = pooled + image * parts * channels + c;
    float sum = 0.f;
#pragma unroll 4
    for (int k = 0; k < parts; ++k) sum += from[int64_t{k} * channels];
    p[c] = sum * scale;
  }
  __syncthreads();
  for (int s = warp; s < squeeze; s += kSeWarps) {
    const float* row = w_squeeze + int64_t{s} * channels;
    float sum = 0.f;
#pragma unroll 8
    for (int c = lane * L; c < channels; c += 32 * L) {
      float w[L], v[L];
      load_lanes<float, L>(row + c, w);
      load_lanes<float, L>(p + c, v);
#pragma unroll
      for (int i = 0; i < L; ++i) sum += w[i] * v[i];
    }
    sum = warp_sum(sum);
    if (lane == 0) {
      const float z = sum + (b_squeeze ? b_squeeze[s] : 0.f);
      h[s] = act_value_any<float>(act, z);
      if (squeezed) squeezed[image * squeeze + s] = z;
      if (acted) acted[image * squeeze + s] = h[s];
    }
  }
  __syncthreads();
  // Eight lanes a channel: a warp's rows of weights are neighbours. Four channels in flight.
  constexpr int kRows = 4;
  const int part = lane % 8, row = lane / 8;
  for (int first = warp * 4 * kRows; first < channels; first += kSeWarps * 4 * kRows) {
    float sum[kRows] = {};
    for (int s = part * L; s < squeeze; s += 8 * L) {
      float v[L], w[kRows][L];
      load_lanes<float, L>(h + s, v);
#pragma unroll
      for (int u = 0; u < kRows; ++u)
        load_lanes<float, L>(w_excite + int64_t{min(first + 4 * u + row, channels - 1)} * squeeze + s, w[u]);
#pragma unroll
      for (int u = 0; u < kRows; ++u)
#pragma unroll
        for (int i = 0; i < L; ++i) sum[u] += w[u][i] * v[i];
    }
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
#pragma unroll
      for (int o = 4; o > 0; o /= 2) sum[u] += __shfl_xor_sync(0xffffffffu, sum[u], o);
      const int c = first + 4 * u + row;
      if (part == 0 && c < channels) {
        const float z = sum[u] + (b_excite ? b_excite[c] : 0.f);
        if (excited) excited[image * channels + c] = z;
        gate[image * channels + c] = precise_sigmoid(z);
      }
    }
  }
}

/// Of one image a block: dexcited and dsqueezed, the gradients of the layers' sums, and dpooled, from dgate.
/// L: as above. Shared memory: channels + squeeze + 32 kSeWarps floats.
template <int L>
__global__ __launch_bounds__(kSeThreads) void se_gradient_kernel(const float* dgate, const float* gate,
                                                                 const float* squeezed,
                                                                 const float* w_squeeze,
                                                                 const float* w_excite, float* dexcited,
                                                                 float* dsqueezed, float* dpooled,
                                                                 int channels, int squeeze, Act act) {
  GM_DYN_SHARED(float, de);
  float *const ds = de + channels, *const sums = ds + squeeze;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int64_t image = blockIdx.x;
  for (int c = thread; c < channels; c += kSeThreads) {
    const float g = gate[image * channels + c];
    dexcited[image * channels + c] = de[c] = dgate[image * channels + c] * g * (1.f - g);
  }
  __syncthreads();
  // Eight lanes beside each other in a row of w_excite, four rows a warp: 8 L of dsqueezed a round.
  const int part = lane % 8, row = lane / 8;
  for (int first = 0; first < squeeze; first += 8 * L) {
    float sum[L] = {};
    const int s = min(first + part * L, squeeze - L);  // past the end: not used
#pragma unroll 8
    for (int c = warp * 4 + row; c < channels; c += kSeWarps * 4) {
      float w[L];
      load_lanes<float, L>(w_excite + int64_t{c} * squeeze + s, w);
#pragma unroll
      for (int i = 0; i < L; ++i) sum[i] += w[i] * de[c];
    }
#pragma unroll
    for (int i = 0; i < L; ++i) {
      sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], 8);
      sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], 16);
      if (row == 0) sums[warp * 32 + part * L + i] = sum[i];
    }
    __syncthreads();
    if (thread < 8 * L && first + thread < squeeze) {
      float total = 0.f;
      for (int w = 0; w < kSeWarps; ++w) total += sums[w * 32 + thread];
      const int at = first + thread;
      dsqueezed[image * squeeze + at] = ds[at] =
          total * act_slope_any<float>(act, squeezed[image * squeeze + at]);
    }
    __syncthreads();
  }
  for (int c = thread * L; c < channels; c += kSeThreads * L) {
    float sum[L] = {};
#pragma unroll 8
    for (int s = 0; s < squeeze; ++s) {
      float w[L];
      load_lanes<float, L>(w_squeeze + int64_t{s} * channels + c, w);
#pragma unroll
      for (int i = 0; i < L; ++i) sum[i] += w[i] * ds[s];
    }
    store_lanes<float, L>(dpooled + image * channels + c, sum);
  }
}

/// What se_weights_kernel sums: dw[i][j] = sum over images of a[image][i] b[image][j], db[i] = sum of
/// a[image][i].
struct SeProduct {
  const float *a, *b;
  int rows, columns;
  float *dw, *db;  // null: not wanted
  bool add_w, add_b;
  GM_HOST_DEVICE int tiles() const {
    return ((rows + kSeTile - 1) / kSeTile) * ((columns + kSeTile - 1) / kSeTile);
  }
};

/// Block: 32 x 8 threads, a tile of 32 rows x 32 columns of the first product, then those of the second.
static __global__ __launch_bounds__(256) void se_weights_kernel(SeProduct first, SeProduct second,
                                                                int images) {
  GM_SHARED(float, a, [kSeTile][kSeTile + 1]);
  GM_SHARED(float, b, [kSeTile][kSeTile + 1]);
  const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  const int block = static_cast<int>(blockIdx.x), before = first.tiles();
  const SeProduct p = block < before ? first : second;
  const int tile = block < before ? block : block - before, across = (p.columns + kSeTile - 1) / kSeTile,
            row = tile / across * kSeTile, column = tile % across * kSeTile;
  float sum[4] = {}, bias = 0.f;
  for (int n = 0; n < images; n += kSeTile) {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int image = n + y + 8 * k;
      a[y + 8 * k][x] = image < images && row + x < p.rows ? p.a[int64_t{image} * p.rows + row + x] : 0.f;
      b[y + 8 * k][x] =
          image < images && column + x < p.columns ? p.b[int64_t{image} * p.columns + column + x] : 0.f;
    }
    __syncthreads();
#pragma unroll 8
    for (int k = 0; k < kSeTile; ++k) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[i] += a[k][y + 8 * i] * b[k][x];
      bias += a[k][x];
    }
    __syncthreads();
  }
  if (p.db && column == 0 && y == 0 && row + x < p.rows)
    p.db[row + x] = bias + (p.add_b ? p.db[row + x] : 0.f);
  if (!p.dw || column + x >= p.columns) return;
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (row + y + 8 * i < p.rows) {
      float* to = p.dw + int64_t{row + y + 8 * i} * p.columns + column + x;
      *to = sum[i] + (p.add_w ? *to : 0.f);
    }
}

// ---- launchers ----

inline const float* se_optional(const View& v) { return v ? v.as<float>() : nullptr; }

/// Calls f with the lanes of both layers.
template <class F>
void se_lanes(int channels, int squeeze, F&& f) {
  if (channels % 4 == 0 && squeeze % 4 == 0) return f(std::integral_constant<int, 4>{});
  f(std::integral_constant<int, 1>{});
}

/// The operands of se_forward_kernel.
struct SeForward {
  const float* pooled;
  int parts = 1;
  float scale = 1.f;
  View w_squeeze, b_squeeze, w_excite, b_excite;
  float *squeezed = nullptr, *acted = nullptr, *excited = nullptr, *gate;
  Act act;
};
inline void se_launch_forward(const SeForward& se, int64_t images, const Context& ctx) {
  const int squeeze = static_cast<int>(se.w_squeeze.shape()[0]),
            channels = static_cast<int>(se.w_squeeze.shape()[1]);
  se_lanes(channels, squeeze, [&](auto lanes) {
    GM_LAUNCH((se_forward_kernel<lanes.value>), static_cast<unsigned>(images), kSeThreads,
              (channels + squeeze) * sizeof(float), ctx.stream, se.pooled, se.parts, se.scale,
              se.w_squeeze.as<float>(), se_optional(se.b_squeeze), se.w_excite.as<float>(),
              se_optional(se.b_excite), se.squeezed, se.acted, se.excited, se.gate, channels, squeeze,
              se.act);
  });
}
inline void se_launch_forward(const SeLayers& se) {
  const OpCall& c = se.call;
  se_launch_forward({.pooled = se.pooled.as<float>(),
                     .w_squeeze = c.in[4],
                     .b_squeeze = c.in[5],
                     .w_excite = c.in[6],
                     .b_excite = c.in[7],
                     .squeezed = se.squeezed.as<float>(),
                     .acted = se.acted.as<float>(),
                     .excited = se.excited.as<float>(),
                     .gate = se.gate.as<float>(),
                     .act = act_of(c.attrs)},
                    se.gate.shape()[0], c.ctx);
}

/// dpooled and the gradients of the four parameters.
inline void se_launch_backward(const SeLayers& se, const float* dgate) {
  const OpCall& c = se.call;
  const int images = static_cast<int>(se.gate.shape()[0]), channels = static_cast<int>(se.gate.shape()[1]),
            squeeze = static_cast<int>(se.acted.shape()[1]);
  float *dexcited = se.scratch(se.at.dexcited, se.excited).as<float>(),
        *dsqueezed = se.scratch(se.at.dsqueezed, se.squeezed).as<float>();
  se_lanes(channels, squeeze, [&](auto lanes) {
    GM_LAUNCH((se_gradient_kernel<lanes.value>), static_cast<unsigned>(images), kSeThreads,
              (channels + squeeze + kSeThreads) * sizeof(float), c.ctx.stream, dgate, se.gate.as<float>(),
              se.squeezed.as<float>(), c.in[4].as<float>(), c.in[6].as<float>(), dexcited, dsqueezed,
              se.dpooled().as<float>(), channels, squeeze, act_of(c.attrs));
  });
  auto product = [&](const float* a, const View& b, int rows, int columns, int weights) {
    const GradView &dw = c.din[weights], &db = c.din[weights + 1];
    return SeProduct{.a = a,
                     .b = b.as<float>(),
                     .rows = rows,
                     .columns = columns,
                     .dw = dw ? dw.view.as<float>() : nullptr,
                     .db = db ? db.view.as<float>() : nullptr,
                     .add_w = dw.mode == GradMode::accumulate,
                     .add_b = db.mode == GradMode::accumulate};
  };
  const SeProduct first = product(dsqueezed, se.pooled, squeeze, channels, 4),
                  second = product(dexcited, se.acted, channels, squeeze, 6);
  GM_LAUNCH(se_weights_kernel, static_cast<unsigned>(first.tiles() + second.tiles()), dim3(32, 8), 0,
            c.ctx.stream, first, second, images);
}

}  // namespace gm::GM_BACKEND_NS
