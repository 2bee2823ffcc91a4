// Batch norm on the GPU, backward: two sums per channel, then dx. Mapping of threads: bn.cuh.
#include "kernels/batch_norm/bn_launch.cuh"
#include "kernels/batch_norm/bn_reduce.cuh"

namespace gm::GM_BACKEND_NS {

/// A row, loaded before it is used: x, dy and the factor of its image.
template <class T, int N, Act A, bool kPlain>
struct BnRow {
  BnRaw<T, N> x, dy;
  float factor;
  unsigned image;

  /// x or dy may be null.
  __device__ __forceinline__ void load(const T* from, const BnGradient<T>& g, const BnImages& images,
                                       unsigned row, const BnPlace& at) {
    x = bn_load<T, N>(at.row((from ? from : g.dy) + at.c, row));
    dy = bn_load<T, N>(at.row((kPlain || g.dy ? g.dy : from) + at.c, row));
    if constexpr (!kPlain) {
      image = images.of(row);
      factor = g.factor ? g.factor[image] : 1.f;
    }
  }
  /// x - mean and dz; the same without the mean where it is folded into beta. What dy holds in a dropped
  /// image does not matter.
  template <bool kFolded>
  __device__ __forceinline__ void get(const BnGradient<T>& g, int channels, int c, const float (&mean)[N],
                                      const float (&scale)[N], const float (&beta)[N], float (&v)[N],
                                      float (&dz)[N]) const {
    bn_unpack(x, v);
    bn_unpack(dy, dz);
    if constexpr (!kFolded) {
#pragma unroll
      for (int i = 0; i < N; ++i) v[i] -= mean[i];
    }
    if constexpr (!kPlain) {
      const bool used = g.dy && factor != 0.f;
#pragma unroll
      for (int i = 0; i < N; ++i) dz[i] = used ? dz[i] * factor : 0.f;
      bn_gate_and_pool(g, image, channels, c, dz);
    }
    if constexpr (A != Act::none) {
#pragma unroll
      for (int i = 0; i < N; ++i) dz[i] *= act_slope<A, T>(v[i] * scale[i] + beta[i]);
    }
  }
};

/// Sums dz and dz (x - mean). x null: only sum dz (a bias gradient).
template <class T, int N, Act A, bool kPlain>
__global__ __launch_bounds__(kBnThreads,
                             2) void bn_backward_sums_kernel(const T* x, BnGradient<T> g, unsigned pixels,
                                                             int channels, float* partial,
                                                             BnFinishBackward finish, BnImages images) {
  await_launch_before();
  const BnPlace at(N, channels, sizeof(T));
  float s[N] = {}, q[N] = {};
  if (at.c < channels) {
    const unsigned last = pixels - 1;  // walked from there to the first
    float mean[N] = {}, scale[N] = {}, beta[N] = {};
    using Row = BnRow<T, N, A, kPlain>;
    bn_stream<Row, 2>(
        at.start, at.step, pixels, [&](unsigned k, Row& held) { held.load(x, g, images, last - k, at); },
        [&] {
          if (x) finish.load<N, A != Act::none>(at.c, mean, scale, beta);
        },
        [&](const Row& held, unsigned) {
          if constexpr (!kPlain) {
            if (held.factor == 0.f) return;  // a dropped image adds nothing
          }
          float v[N], dz[N];
          held.template get<false>(g, channels, at.c, mean, scale, beta, v, dz);
#pragma unroll
          for (int i = 0; i < N; ++i) {
            s[i] += dz[i];
            q[i] += dz[i] * v[i];
          }
        });
  }
  bn_reduce<N>(s, q, static_cast<int>(blockDim.x), static_cast<int>(blockDim.y), at.first, channels, partial,
               finish);
}

/// dx = scale * dz - c - q * (x - mean), c and q 0 for frozen statistics; dx may be dy. The mean of bf16 is
/// folded into beta and c, as in BnAffine.
template <class T, int N, Act A, bool kPlain>
__global__ __launch_bounds__(kBnThreads, 2) void bn_backward_apply_kernel(const T* x, BnGradient<T> g, T* dx,
                                                                          unsigned pixels, int channels,
                                                                          BnFinishBackward k, bool accumulate,
                                                                          BnImages images) {
  await_launch_before();
  const BnPlace at(N, channels, sizeof(T));
  if (at.c >= channels) return;
  constexpr bool kFolded = sizeof(T) == 2;
  float mean[N], scale[N], beta[N], shift[N] = {}, slope[N] = {};
  using Row = BnRow<T, N, A, kPlain>;
  bn_stream<Row, 2>(
      at.start, at.step, pixels, [&](unsigned row, Row& held) { held.load(x, g, images, row, at); },
      [&] {
        k.load<N, A != Act::none>(at.c, mean, scale, beta);
        if (!k.frozen) {
          load_lanes<float, N>(k.v.c + at.c, shift);
          load_lanes<float, N>(k.v.q + at.c, slope);
        }
        if constexpr (kFolded) {
#pragma unroll
          for (int i = 0; i < N; ++i) {
            if constexpr (A != Act::none) beta[i] -= mean[i] * scale[i];
            shift[i] -= mean[i] * slope[i];
          }
        }
      },
      [&](const Row& held, unsigned row) {
        float v[N], dz[N];
        held.template get<kFolded>(g, channels, at.c, mean, scale, beta, v, dz);
#pragma unroll
        for (int i = 0; i < N; ++i) v[i] = scale[i] * dz[i] - (shift[i] + slope[i] * v[i]);
        put_lanes<T, N>(at.row(dx + at.c, row), v, accumulate);
      });
}

// ---- launchers ----

template <Act A, class T>
static void launch_sums(const T* x, const BnGradient<T>& g, int64_t pixels, int64_t channels, float* partial,
                        const BnFinishBackward& finish, const Context& ctx) {
  bn_lanes<T>(channels, [&](auto n) {
    constexpr int N = decltype(n)::value;
    const BnGrid grid(pixels, channels, N);
    auto launch = [&](auto plain) {
      GM_LAUNCH((bn_backward_sums_kernel<T, N, A, plain.value>), grid.summing_grid(pixels, ctx), grid.block(),
                0, ctx.stream, x, g, pixels, static_cast<int>(channels), partial, finish,
                BnImages(g.image_pixels));
    };
    g.plain() ? launch(std::true_type{}) : launch(std::false_type{});
  });
}

template <class T>
void bn_launch_sums(Act act, const T* x, const BnGradient<T>& g, int64_t pixels, int64_t channels,
                    float* partial, const BnFinishBackward& finish, const Context& ctx) {
  act_switch(act, [&](auto a) { launch_sums<a.value>(x, g, pixels, channels, partial, finish, ctx); });
}

template <Act A, class T>
static void launch_backward_apply(const T* x, const BnGradient<T>& g, GradView dx, int64_t pixels,
                                  int64_t channels, const BnFinishBackward& finish, const Context& ctx) {
  bn_lanes<T>(channels, [&](auto n) {
    constexpr int N = decltype(n)::value;
    const BnGrid grid(pixels, channels, N, true);
    auto launch = [&](auto plain) {
      GM_LAUNCH((bn_backward_apply_kernel<T, N, A, plain.value>),
                grid.filling_grid(pixels, ctx, bn_backward_apply_kernel<T, N, A, plain.value>), grid.block(),
                0, ctx.stream, x, g, dx.view.as<T>(), pixels, static_cast<int>(channels), finish,
                dx.mode == GradMode::accumulate, BnImages(g.image_pixels));
    };
    g.plain() ? launch(std::true_type{}) : launch(std::false_type{});
  });
}

template <class T>
void bn_op_backward(const OpCall& c, Act act, bool pool) {
  const Shape& s = c.in[0].shape();
  const int64_t channels = s.channels(), pixels = s.pixels();
  float* memory = static_cast<float*>(c.workspace.data);
  const BnVectors v(memory, channels);
  const T* x = c.in[0].as<T>();
  const BnGradient<T> g{c.dout[0].as<T>(), pool ? c.dout[1].as<float>() : nullptr,
                        static_cast<int>(pixels / s[0]),
                        DropPath(c.attrs, c.ctx.step) ? c.saved[2].as<float>() : nullptr};
  const BnFinishBackward finish = bn_finish_backward_of(c, 1, v, pixels);
  if (!finish.frozen || finish.dgamma || finish.dbeta)
    bn_launch_sums<T>(act, x, g, pixels, channels, bn_gpu_partials(memory, channels), finish, c.ctx);
  if (!c.din[0]) return;
  act_switch(
      act, [&](auto a) { launch_backward_apply<a.value>(x, g, c.din[0], pixels, channels, finish, c.ctx); });
}

#define GM_BN_BACKWARD(T)                                                                        \
  template void bn_launch_sums<T>(Act, const T*, const BnGradient<T>&, int64_t, int64_t, float*, \
                                  const BnFinishBackward&, const Context&);                      \
  template void bn_op_backward<T>(const OpCall&, Act, bool);
GM_BN_BACKWARD(float)
GM_BN_BACKWARD(bf16)
#undef GM_BN_BACKWARD

}  // namespace gm::GM_BACKEND_NS
