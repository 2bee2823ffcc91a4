// Batch norm on the GPU, forward: statistics, and the pass that normalises, activates and what follows.
// Mapping of threads: bn.cuh.
#include "kernels/batch_norm/bn_image_sums.cuh"
#include "kernels/batch_norm/bn_launch.cuh"
#include "kernels/batch_norm/bn_reduce.cuh"

namespace gm::GM_BACKEND_NS {

// Statistics about a pivot (the mean of eight pixels spread over the tensor): one pass, no cancellation when
// |mean| >> std.
template <class T, int N>
__global__ __launch_bounds__(kBnThreads, 2) void bn_statistics_kernel(const T* x, unsigned pixels,
                                                                      int channels, float* partial,
                                                                      BnFinish finish, BnDraw draw) {
  await_launch_before();
  const BnPlace at(N, channels, sizeof(T));
  float s[N] = {}, q[N] = {};
  if (at.c < channels) {
    const T* const p = x + at.c;
    const unsigned last = pixels - 1;  // walked from there to the first
    float pivot[N] = {};
    using Row = BnRaw<T, N>;
    bn_stream<Row, 4>(
        at.start, at.step, pixels, [&](unsigned k, Row& held) { held = bn_load<T, N>(at.row(p, last - k)); },
        [&] {
          BnRaw<T, N> probe[8];
#pragma unroll
          for (int k = 0; k < 8; ++k)
            probe[k] = bn_load<T, N>(at.row(p, static_cast<unsigned>(uint64_t{pixels} * k / 8)));
#pragma unroll
          for (int k = 0; k < 8; ++k) {
            float v[N];
            bn_unpack(probe[k], v);
#pragma unroll
            for (int i = 0; i < N; ++i) pivot[i] += v[i] * 0.125f;
          }
          if (blockIdx.x == 0 && threadIdx.y == 0) {
#pragma unroll
            for (int i = 0; i < N; ++i) finish.v.pivot[at.c + i] = pivot[i];
          }
          // Of this block all threads have a row or, where pixels are fewer than rows, at least as many as
          // there are pixels, and so images. Behind the pivot it takes no more registers.
          if (blockIdx.x == 0 && blockIdx.y == 0) draw(linear_thread(), block_threads());
        },
        [&](const Row& held, unsigned) {
          float v[N];
          bn_unpack(held, v);
#pragma unroll
          for (int i = 0; i < N; ++i) {
            const float d = v[i] - pivot[i];
            s[i] += d;
            q[i] += d * d;
          }
        });
  }
  bn_reduce<N>(s, q, static_cast<int>(blockDim.x), static_cast<int>(blockDim.y), at.first, channels, partial,
               finish);
}

// Inference and frozen BN: coefficients from the running statistics. One thread per channel.
static __global__ void bn_running_kernel(BnFinish f, int channels, BnDraw draw) {
  await_launch_before();
  const int c = blockIdx.x * blockDim.x + threadIdx.x;
  draw(static_cast<unsigned>(c), gridDim.x * blockDim.x);
  if (c >= channels) return;
  const float inv = static_cast<float>(1.0 / sqrt(static_cast<double>(f.running_var[c]) + f.eps));
  f.v.mean[c] = f.running_mean[c];
  f.v.scale[c] = f.gamma[c] * inv;
  f.v.beta[c] = f.beta[c];
  if (f.mean) f.mean[c] = f.running_mean[c];
  if (f.inv_std) f.inv_std[c] = inv;
}

/// y = act(z), with a tail when kTail; y may be x or the residual. What x holds in images that stochastic
/// depth drops does not matter.
template <class T, int N, Act A, bool kTail>
__global__ __launch_bounds__(kBnThreads, kTail ? 2 : 4) void bn_apply_kernel(const T* x, T* y,
                                                                             unsigned pixels, int channels,
                                                                             BnVectors k, BnTail<T> tail,
                                                                             BnImages images) {
  await_launch_before();
  const BnPlace at(N, channels, sizeof(T));
  if (at.c >= channels) return;
  BnAffine<T, N> normalise;
  const T* const residuals = tail.residual ? tail.residual + at.c : x + at.c;
  x += at.c;
  y += at.c;
  struct Row {
    BnRaw<T, N> x, residual;
    float factor, gate[N];
  };
  bn_stream<Row, 2>(
      at.start, at.step, pixels,
      [&](unsigned row, Row& held) {
        held.x = bn_load<T, N>(at.row(x, row));
        if constexpr (kTail) {
          held.residual = bn_load<T, N>(at.row(residuals, row));
          held.factor = tail.factor ? tail.factor[images.of(row)] : 1.f;
          if (tail.gate)
            load_lanes<float, N>(tail.gate + uint64_t{images.of(row)} * channels + at.c, held.gate);
        }
      },
      [&] { normalise = BnAffine<T, N>(k, at.c); },
      [&](const Row& held, unsigned row) {
        float v[N];
        bn_unpack(held.x, v);
#pragma unroll
        for (int i = 0; i < N; ++i) v[i] = act_value<A, T>(normalise(i, v[i]));
        if constexpr (kTail) {
#pragma unroll
          for (int i = 0; i < N; ++i) v[i] = held.factor != 0.f ? v[i] * held.factor : 0.f;
          if (tail.gate) {
#pragma unroll
            for (int i = 0; i < N; ++i) v[i] *= held.gate[i];
          }
          if (tail.residual) {
            float add[N];
            bn_unpack(held.residual, add);
#pragma unroll
            for (int i = 0; i < N; ++i) v[i] += add[i];
          }
        }
        store_lanes<T, N>(at.row(y, row), v);
      });
}

/// The same with the mean over each image's pixels. Block = one image x one slice, so that the mean needs no
/// second stage.
template <class T, int N, Act A>
__global__ __launch_bounds__(kBnThreads, 3) void bn_apply_pool_kernel(const T* x, T* y, float* pooled,
                                                                      int pixels, int channels, BnVectors k) {
  await_launch_before();
  GM_SHARED(float, tile, [kBnTile<1, N>]);
  const BnPlace at(N, channels, sizeof(T));
  float sum[1][N] = {};
  if (at.c < channels) {
    BnAffine<T, N> normalise;
    const uint64_t image = uint64_t{blockIdx.x} * pixels * channels + at.c;
    x += image;
    y += image;
    using Row = BnRaw<T, N>;
    bn_stream<Row, 2>(
        threadIdx.y, blockDim.y, pixels,
        [&](unsigned row, Row& held) { held = bn_load<T, N>(at.row(x, row)); },
        [&] { normalise = BnAffine<T, N>(k, at.c); },
        [&](const Row& held, unsigned row) {
          float v[N];
          bn_unpack(held, v);
#pragma unroll
          for (int i = 0; i < N; ++i) {
            v[i] = act_value<A, T>(normalise(i, v[i]));
            sum[0][i] += v[i];
          }
          store_lanes<T, N>(at.row(y, row), v);
        });
  }
  bn_block_sums<1, N>(
      sum, static_cast<int>(blockDim.x), static_cast<int>(blockDim.y), tile, [&](int j, const float(&s)[1]) {
        if (at.first + j < channels)
          pooled[int64_t{blockIdx.x} * channels + at.first + j] = s[0] / static_cast<float>(pixels);
      });
}

/// Only the mean over each image's pixels.
template <class T, int N, Act A>
__global__ __launch_bounds__(32 * kBnImageRows, 4) void bn_pool_kernel(const T* x, float* pooled, int pixels,
                                                                       int channels, BnVectors k) {
  await_launch_before();
  const int c = (static_cast<int>(blockIdx.x) * 32 + static_cast<int>(threadIdx.x)) * N;
  BnAffine<T, N> normalise;
  const T* const from[] = {x};
  bn_image_sums<T, N, 1, 1>(
      from, pixels, channels, c, [&] { normalise = BnAffine<T, N>(k, c); },
      [&](const float(&v)[1][N], float(&sum)[1][N]) {
#pragma unroll
        for (int i = 0; i < N; ++i) sum[0][i] += act_value<A, T>(normalise(i, v[0][i]));
      },
      [&](unsigned image, int channel, const float(&total)[1]) {
        pooled[int64_t{image} * channels + channel] = total[0] / static_cast<float>(pixels);
      });
}

// ---- launchers ----

void bn_launch_running(const BnFinish& finish, int64_t channels, const BnDraw& draw, const Context& ctx) {
  GM_LAUNCH(bn_running_kernel, bn_vector_blocks(channels), 128, 0, ctx.stream, finish,
            static_cast<int>(channels), draw);
}

template <Act A, class T>
static void launch_apply(const T* x, T* y, float* pooled, const Shape& shape, BnVectors k, const Context& ctx,
                         const BnTail<T>& tail) {
  const int64_t channels = shape.channels(), pixels = shape.pixels();
  if (!y)
    return bn_image_lanes(channels, [&](auto n) {
      const BnImageGrid g(shape[0], pixels / shape[0], channels, n.value);
      GM_LAUNCH((bn_pool_kernel<T, n.value, A>), g.grid, g.block, 0, ctx.stream, x, pooled,
                static_cast<int>(pixels / shape[0]), static_cast<int>(channels), k);
    });
  bn_lanes<T>(channels, [&](auto n) {
    constexpr int N = decltype(n)::value;
    const BnGrid g(pixels, channels, N);
    const BnGrid whole(pixels, channels, N, true);
    auto all = [&](auto kernel) { return whole.filling_grid(pixels, ctx, kernel); };
    if (pooled)
      GM_LAUNCH((bn_apply_pool_kernel<T, N, A>), dim3(unsigned(shape[0]), unsigned(g.slices)), g.block(), 0,
                ctx.stream, x, y, pooled, static_cast<int>(pixels / shape[0]), static_cast<int>(channels), k);
    else if (tail.residual || tail.factor || tail.gate)
      GM_LAUNCH((bn_apply_kernel<T, N, A, true>), all(bn_apply_kernel<T, N, A, true>), whole.block(), 0,
                ctx.stream, x, y, pixels, static_cast<int>(channels), k, tail, BnImages(tail.image_pixels));
    else
      GM_LAUNCH((bn_apply_kernel<T, N, A, false>), all(bn_apply_kernel<T, N, A, false>), whole.block(), 0,
                ctx.stream, x, y, pixels, static_cast<int>(channels), k, tail, BnImages());
  });
}

template <class T>
void bn_launch_apply(Act act, const T* x, T* y, float* pooled, const Shape& shape, BnVectors k,
                     const Context& ctx, const BnTail<T>& tail) {
  act_switch(act, [&](auto a) { launch_apply<a.value>(x, y, pooled, shape, k, ctx, tail); });
}

template <class T>
void bn_op_forward(const OpCall& c, Act act, bool pool) {
  const Shape& s = c.in[0].shape();
  const int64_t channels = s.channels(), pixels = s.pixels();
  float* memory = static_cast<float*>(c.workspace.data);
  const BnVectors v(memory, channels);
  const BnFinish finish = bn_finish_of(c, 1, 0, v, pixels);
  const BnDraw draw = bn_draw_of(c, s);
  const T* x = c.in[0].as<T>();
  if (BatchNormAttrs(c.attrs).training)
    bn_lanes<T>(channels, [&](auto n) {
      constexpr int N = decltype(n)::value;
      const BnGrid g(pixels, channels, N);
      GM_LAUNCH((bn_statistics_kernel<T, N>), g.summing_grid(pixels, c.ctx), g.block(), 0, c.ctx.stream, x,
                pixels, static_cast<int>(channels), bn_gpu_partials(memory, channels), finish, draw);
    });
  else
    bn_launch_running(finish, channels, draw, c.ctx);
  bn_launch_apply<T>(act, x, c.out[0].as<T>(), pool ? c.out[1].as<float>() : nullptr, s, v, c.ctx,
                     {.residual = c.in.size() > 3 ? c.in[3].as<T>() : nullptr,
                      .factor = draw.drop ? draw.factor : nullptr,
                      .image_pixels = static_cast<int>(pixels / s[0])});
}

#define GM_BN_FORWARD(T)                                                                               \
  template void bn_launch_apply<T>(Act, const T*, T*, float*, const Shape&, BnVectors, const Context&, \
                                   const BnTail<T>&);                                                  \
  template void bn_op_forward<T>(const OpCall&, Act, bool);
GM_BN_FORWARD(float)
GM_BN_FORWARD(bf16)
#undef GM_BN_FORWARD

}  // namespace gm::GM_BACKEND_NS
