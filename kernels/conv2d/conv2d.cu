#include "kernels/conv2d/conv2d.h"

#include "kernels/add/add.h"
#include "kernels/common/act.cuh"
#include "kernels/common/op.h"
#include "kernels/conv2d/conv2d_cuda.h"
#include "kernels/conv2d/conv2d_narrow_weights.cuh"
#include "kernels/linear/tile_product.cuh"
#ifdef __CUDACC__
#include "kernels/conv2d/conv2d_after.cuh"
#include "kernels/conv2d/conv2d_cudnn.h"
#include "kernels/linear/linear_cublas.h"
#endif

// Our own convolution for every shape: implicit matrix products with shared-memory tiles. cuDNN takes over
// where it has a plan; these kernels serve what it refuses, machines without it, and as its oracle. For bf16
// with few channels conv2d_narrow.cuh stands in their place, unless the attribute `general` is 1, and among
// the candidates beside cuDNN's.
//
// All three passes are C[M x N] = A[M x D] * B[D x N] with operands gathered on the fly:
//   forward           M output pixels   N filters  D taps (r, s, c)
//   backward data     M input pixels    N channels D (r, s, filter)
//   backward weights  M filters         N taps     D output pixels, cut into slices (grid.z)
//
// Thread mapping and the product itself: kernels/linear/tile_product.cuh.

namespace gm::GM_BACKEND_NS {

void add_backward(const OpCall&);

namespace {

struct Pixel {
  int n, y, x;
};
__device__ __forceinline__ Pixel pixel_of(int64_t index, int h, int w) {
  const int64_t row = index / w;
  return {static_cast<int>(row / h), static_cast<int>(row % h), static_cast<int>(index - row * w)};
}

// Four taps (r, s, c..c+3) of the patch of one output pixel. Without vectors a quad may run into the next
// tap.
template <class T, bool kVector>
__device__ __forceinline__ void load_patch(const ConvProblem& g, const T* x, const Pixel& p, int tap,
                                           float (&v)[4]) {
  const int y0 = p.y * g.stride - g.pad_top, x0 = p.x * g.stride - g.pad_left;
  if constexpr (kVector) {
    const int c = tap % g.c, s = tap / g.c % g.kernel, r = tap / g.c / g.kernel;
    const int iy = y0 + r, ix = x0 + s;
    const bool inside = tap < g.taps && iy >= 0 && iy < g.h && ix >= 0 && ix < g.w;
    load4<T, true>(x + ((int64_t{p.n} * g.h + iy) * g.w + ix) * g.c + c, inside ? 4 : 0, v);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int t = tap + i, c = t % g.c, s = t / g.c % g.kernel, r = t / g.c / g.kernel;
      const int iy = y0 + r, ix = x0 + s;
      const bool inside = t < g.taps && iy >= 0 && iy < g.h && ix >= 0 && ix < g.w;
      v[i] = inside ? to_float(x[((int64_t{p.n} * g.h + iy) * g.w + ix) * g.c + c]) : 0.f;
    }
  }
}

// Operands of the product (see tile_product.cuh).
template <class T, bool kVector>
struct ForwardPatches {  // A of forward
  static constexpr bool kAlongDepth = true;
  ConvProblem g;
  const T* x;
  __device__ void load(int64_t pixel, int64_t tap, float (&v)[4]) const {
    if (pixel < g.out_pixels) return load_patch<T, kVector>(g, x, pixel_of(pixel, g.oh, g.ow), int(tap), v);
    load4<T, kVector>(x, 0, v);
  }
};
template <class T, bool kVector>
struct ForwardFilters {  // B of forward: w[filter][tap]
  static constexpr bool kAlongDepth = true;
  ConvProblem g;
  const T* w;
  __device__ void load(int64_t filter, int64_t tap, float (&v)[4]) const {
    load4<T, kVector>(w + filter * g.taps + tap, filter < g.k ? g.taps - int(tap) : 0, v);
  }
};
template <class T, bool kVector>
struct GradientPatches {  // A of backward data: dy at the outputs that read an input pixel; d = (r, s,
                          // filter)
  static constexpr bool kAlongDepth = true;
  ConvProblem g;
  const T* dy;
  __device__ void load(int64_t pixel, int64_t d, float (&v)[4]) const {
    const Pixel p = pixel_of(pixel, g.h, g.w);
    const int reach = kVector ? 1 : 4;
#pragma unroll
    for (int i = 0; i < reach; ++i) {
      const int e = int(d) + i, k = e % g.k, s = e / g.k % g.kernel, r = e / g.k / g.kernel;
      const int y = p.y + g.pad_top - r, x = p.x + g.pad_left - s;
      const int oy = y / g.stride, ox = x / g.stride;
      const bool hit = pixel < g.in_pixels && r < g.kernel && y >= 0 && x >= 0 && oy * g.stride == y &&
                       ox * g.stride == x && oy < g.oh && ox < g.ow;
      const int64_t at = ((int64_t{p.n} * g.oh + oy) * g.ow + ox) * g.k + k;
      if constexpr (kVector)
        load4<T, true>(dy + at, hit ? 4 : 0, v);
      else
        v[i] = hit ? to_float(dy[at]) : 0.f;
    }
  }
};
template <class T, bool kVector>
struct GradientFilters {  // B of backward data: w[filter][r][s][c], four channels
  static constexpr bool kAlongDepth = false;
  ConvProblem g;
  const T* w;
  __device__ void load(int64_t c, int64_t d, float (&v)[4]) const {
    const int k = int(d) % g.k, rs = int(d) / g.k;
    const bool inside = rs < g.kernel * g.kernel;
    load4<T, kVector>(w + (int64_t{k} * g.kernel * g.kernel + rs) * g.c + c, inside ? g.c - int(c) : 0, v);
  }
};
template <class T, bool kVector>
struct PixelGradients {  // A of backward weights: dy[pixel][filter], four filters
  static constexpr bool kAlongDepth = false;
  ConvProblem g;
  const T* dy;
  __device__ void load(int64_t filter, int64_t pixel, float (&v)[4]) const {
    load4<T, kVector>(dy + pixel * g.k + filter, pixel < g.out_pixels ? g.k - int(filter) : 0, v);
  }
};
template <class T, bool kVector>
struct PixelPatches {  // B of backward weights: four taps of a pixel's patch
  static constexpr bool kAlongDepth = false;
  ConvProblem g;
  const T* x;
  __device__ void load(int64_t tap, int64_t pixel, float (&v)[4]) const {
    if (pixel < g.out_pixels) return load_patch<T, kVector>(g, x, pixel_of(pixel, g.oh, g.ow), int(tap), v);
    load4<T, kVector>(x, 0, v);
  }
};

}  // namespace

template <class T, bool kVector, Act kAct>
__global__ void __launch_bounds__(kTileThreads)
    conv2d_forward_kernel(ConvProblem g, const T* x, const T* w, const float* bias, const T* residual, T* y) {
  await_launch_before();
  const int64_t m0 = int64_t{blockIdx.x} * kTile, n0 = int64_t{blockIdx.y} * kTile;
  float sum[4][4] = {};
  tile_product(ForwardPatches<T, kVector>{g, x}, ForwardFilters<T, kVector>{g, w}, m0, n0, 0, g.taps, sum);
  const int64_t n = n0 + threadIdx.x % 16 * 4;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t m = m0 + threadIdx.x / 16 * 4 + i;
    if (m >= g.out_pixels) break;
    for (int j = 0; j < 4 && n + j < g.k; ++j) {
      const int64_t at = m * g.k + n + j;
      const float a = act_value<kAct, T>(sum[i][j] + (bias ? bias[n + j] : 0.f));
      y[at] = from_float<T>(residual ? a + to_float(residual[at]) : a);
    }
  }
}

template <class T, bool kVector>
__global__ void __launch_bounds__(kTileThreads)
    conv2d_backward_data_kernel(ConvProblem g, const T* dy, const T* w, T* dx, bool accumulate) {
  await_launch_before();
  const int64_t m0 = int64_t{blockIdx.x} * kTile, n0 = int64_t{blockIdx.y} * kTile;
  float sum[4][4] = {};
  tile_product(GradientPatches<T, kVector>{g, dy}, GradientFilters<T, kVector>{g, w}, m0, n0, 0,
               int64_t{g.kernel} * g.kernel * g.k, sum);
  const int64_t n = n0 + threadIdx.x % 16 * 4;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t m = m0 + threadIdx.x / 16 * 4 + i;
    if (m >= g.in_pixels) break;
    for (int j = 0; j < 4 && n + j < g.c; ++j) {
      T* to = dx + m * g.c + n + j;
      *to = from_float<T>(accumulate ? to_float(*to) + sum[i][j] : sum[i][j]);
    }
  }
}

// First stage: slice blockIdx.z of the pixels into its own copy of dw.
template <class T, bool kVector>
__global__ void __launch_bounds__(kTileThreads)
    conv2d_backward_weights_kernel(ConvProblem g, const T* x, const T* dy, float* partials, int64_t slice) {
  await_launch_before();
  const int64_t m0 = int64_t{blockIdx.x} * kTile, n0 = int64_t{blockIdx.y} * kTile;
  const int64_t begin = blockIdx.z * slice, end = begin + slice < g.out_pixels ? begin + slice : g.out_pixels;
  float sum[4][4] = {};
  // Pixels past the slice would be loaded by its last step unless a slice is whole steps, which it is.
  tile_product(PixelGradients<T, kVector>{g, dy}, PixelPatches<T, kVector>{g, x}, m0, n0, begin, end, sum);
  float* to = partials + int64_t{blockIdx.z} * g.k * g.taps;
  const int64_t n = n0 + threadIdx.x % 16 * 4;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t m = m0 + threadIdx.x / 16 * 4 + i;
    if (m >= g.k) break;
    for (int j = 0; j < 4 && n + j < g.taps; ++j) to[m * g.taps + n + j] = sum[i][j];
  }
}

namespace {
// Calls f(T{}, std::bool_constant<vector>) for the element type and for channel counts that allow vectors.
template <class F>
void shape_switch(const ConvGeometry& g, F&& f) {
  float_switch(g.dtype, [&](auto zero) {
    if (g.c % 4 == 0 && g.k % 4 == 0) return f(zero, std::true_type{});
    return f(zero, std::false_type{});
  });
}
}  // namespace

void conv2d_forward(const OpCall& c) {
  const ConvGeometry geometry = conv_geometry(c.attrs, c.in[0], c.in[1]);
  const ConvProblem g = conv_problem(geometry);
  const View residual = conv_residual(c.in);
#ifdef __CUDACC__
  const CudnnResult done = cudnn_conv_forward(c, geometry);
  if (done == CudnnResult::complete) return;
  if (done == CudnnResult::plain) {
    float_switch(geometry.dtype, [&](auto zero) {
      using T = decltype(zero);
      const int64_t n = c.out[0].numel();
      auto launch = [&](auto act, auto lanes) {
        constexpr int V = decltype(lanes)::value;
        GM_LAUNCH((conv2d_epilogue_kernel<T, act.value, V>), flat_grid(n, V, c.ctx), kFlatThreads, 0,
                  c.ctx.stream, c.out[0].as<T>(), c.in[2].as<float>(), residual.as<T>(), n, g.k);
      };
      act_switch(act_of(c.attrs), [&](auto act) {
        if (g.k % kVecLanes<T> == 0) return launch(act, Lanes<kVecLanes<T>>{});
        launch(act, Lanes<1>{});
      });
    });
    return;
  }
#endif
  if (NarrowConv p; !c.attrs.geti("general", 0) && narrow_forward(geometry, p))
    return launch_narrow(p, c.in[0].as<bf16>(), c.in[1].as<bf16>(), c.in[2].as<float>(), act_of(c.attrs),
                         residual.as<bf16>(), c.out[0].as<bf16>(), c.ctx);
  shape_switch(geometry, [&](auto zero, auto vector) {
    using T = decltype(zero);
    act_switch(act_of(c.attrs), [&](auto act) {
      GM_LAUNCH((conv2d_forward_kernel<T, vector.value, act.value>), dim3(tiles(g.out_pixels), tiles(g.k)),
                kTileThreads, 0, c.ctx.stream, g, c.in[0].as<T>(), c.in[1].as<T>(), c.in[2].as<float>(),
                residual.as<T>(), c.out[0].as<T>());
    });
  });
}

// Workspace: partial dw of every slice, then partial dbias of every slice.
void conv2d_backward(const OpCall& c) {
  if (act_of(c.attrs) != Act::none) fail("conv2d: no gradient through the activation epilogue");
  residual_backward(add_backward, c, 3);
  const ConvGeometry geometry = conv_geometry(c.attrs, c.in[0], c.in[1]);
  const GradView &dx = c.din[0], &dw = c.din[1], &dbias = c.din[2];
  bool data_done = !dx, weights_done = !dw;
#ifdef __CUDACC__
  data_done = data_done || cudnn_conv_backward_data(c, geometry) == CudnnResult::complete;
  // bf16 1x1: a plain product gives f32 sums in one call, which cuDNN does only by run-time compilation.
  if (!weights_done && geometry.pointwise() && geometry.dtype == DType::bf16)
    weights_done = cublas_weight_gradient(c.ctx, {geometry.out_pixels(), geometry.c, geometry.k, DType::bf16},
                                          c.in[0].data, c.dout[0].data, dw.view.as<float>(),
                                          dw.mode == GradMode::accumulate);
  if (!weights_done) {
    const CudnnResult done = cudnn_conv_backward_weights(c, geometry);
    const bool accumulate = dw.mode == GradMode::accumulate;
    const int64_t n = geometry.weights();
    if (done == CudnnResult::sums_f32)
      GM_LAUNCH((conv2d_add_gradient_kernel<float>), grid_for(n, 256, c.ctx), 256, 0, c.ctx.stream,
                static_cast<const float*>(c.workspace.data), dw.view.as<float>(), n, accumulate);
    if (done == CudnnResult::sums_bf16)
      GM_LAUNCH((conv2d_add_gradient_kernel<bf16>), grid_for(n, 256, c.ctx), 256, 0, c.ctx.stream,
                static_cast<const bf16*>(c.workspace.data), dw.view.as<float>(), n, accumulate);
    weights_done = done != CudnnResult::nothing;
  }
#endif
  const bool narrow = !c.attrs.geti("general", 0);
  if (!data_done && narrow && narrow_data(geometry)) {
    for (int i = 0; i < geometry.stride * geometry.stride; ++i) {
      NarrowConv p;
      narrow_data(geometry, i / int(geometry.stride), i % int(geometry.stride), p);
      launch_narrow(p, c.dout[0].as<bf16>(), c.in[1].as<bf16>(), nullptr, Act::none,
                    dx.mode == GradMode::accumulate ? dx.view.as<bf16>() : nullptr, dx.view.as<bf16>(),
                    c.ctx);
    }
    data_done = true;
  }
  if (NarrowGradient p; !weights_done && narrow && narrow_gradient(geometry, p)) {
    launch_narrow_weights(p, c.in[0].as<bf16>(), c.dout[0].as<bf16>(), static_cast<float*>(c.workspace.data),
                          dw.view.as<float>(), dw.mode == GradMode::accumulate, c.ctx);
    weights_done = true;
  }
  const ConvProblem g = conv_problem(geometry);
  const ConvSlices slices = conv_slices(geometry);
  float* partials = static_cast<float*>(c.workspace.data);
  shape_switch(geometry, [&](auto zero, auto vector) {
    using T = decltype(zero);
    const T* dy = c.dout[0].as<T>();
    if (!data_done)
      GM_LAUNCH((conv2d_backward_data_kernel<T, vector.value>), dim3(tiles(g.in_pixels), tiles(g.c)),
                kTileThreads, 0, c.ctx.stream, g, dy, c.in[1].as<T>(), dx.view.as<T>(),
                dx.mode == GradMode::accumulate);
    if (!weights_done) {
      GM_LAUNCH((conv2d_backward_weights_kernel<T, vector.value>),
                dim3(tiles(g.k), tiles(g.taps), slices.count), kTileThreads, 0, c.ctx.stream, g,
                c.in[0].as<T>(), dy, partials, slices.pixels);
      const int64_t n = geometry.weights();
      GM_LAUNCH(sum_slices_kernel, grid_for(n, 256, c.ctx), 256, 0, c.ctx.stream, partials, n, slices.count,
                dw.view.as<float>(), dw.mode == GradMode::accumulate);
    }
    if (dbias) {
      float* bias_partials = partials + slices.count * geometry.weights();
      GM_LAUNCH((column_sums_kernel<T>), dim3(unsigned((g.k + 31) / 32), slices.count), dim3(32, 8), 0,
                c.ctx.stream, dy, g.out_pixels, g.k, slices.pixels, bias_partials);
      GM_LAUNCH(sum_slices_kernel, grid_for(g.k, 256, c.ctx), 256, 0, c.ctx.stream, bias_partials,
                int64_t{g.k}, slices.count, dbias.view.as<float>(), dbias.mode == GradMode::accumulate);
    }
  });
}

}  // namespace gm::GM_BACKEND_NS
