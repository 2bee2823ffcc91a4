#include "kernels/linear/linear.h"

#include "kernels/common/ceil_div.h"
#include "kernels/common/flat.cuh"
#include "kernels/common/op.h"
#include "kernels/common/partials.cuh"
#include "kernels/linear/tile_product.cuh"
#ifdef __CUDACC__
#include "kernels/linear/linear_cublas.h"
#endif

// Our own dense layer for every shape; cuBLASLt takes over where it is present and has a plan. Thread mapping
// and the product: tile_product.cuh.

namespace gm::GM_BACKEND_NS {

template <class T, bool kVector>
__global__ void __launch_bounds__(kTileThreads)
    linear_forward_kernel(const T* x, const T* w, const float* bias, T* y, int64_t n, int64_t in,
                          int64_t out) {
  await_launch_before();
  const int64_t m0 = int64_t{blockIdx.x} * kTile, n0 = int64_t{blockIdx.y} * kTile;
  float sum[4][4] = {};
  tile_product(RowOperand<T, kVector>{x, n, in}, RowOperand<T, kVector>{w, out, in}, m0, n0, 0, in, sum);
  const int64_t o = n0 + threadIdx.x % 16 * 4;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t row = m0 + threadIdx.x / 16 * 4 + i;
    if (row >= n) break;
    for (int j = 0; j < 4 && o + j < out; ++j)
      y[row * out + o + j] = from_float<T>(sum[i][j] + (bias ? bias[o + j] : 0.f));
  }
}

template <class T, bool kVector>
__global__ void __launch_bounds__(kTileThreads)
    linear_backward_data_kernel(const T* dy, const T* w, T* dx, int64_t n, int64_t in, int64_t out,
                                bool accumulate) {
  await_launch_before();
  const int64_t m0 = int64_t{blockIdx.x} * kTile, n0 = int64_t{blockIdx.y} * kTile;
  float sum[4][4] = {};
  tile_product(RowOperand<T, kVector>{dy, n, out}, ColumnOperand<T, kVector>{w, out, in}, m0, n0, 0, out,
               sum);
  const int64_t column = n0 + threadIdx.x % 16 * 4;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t row = m0 + threadIdx.x / 16 * 4 + i;
    if (row >= n) break;
    for (int j = 0; j < 4 && column + j < in; ++j) {
      T* to = dx + row * in + column + j;
      *to = from_float<T>(accumulate ? to_float(*to) + sum[i][j] : sum[i][j]);
    }
  }
}

// First stage: slice blockIdx.z of the batch into its own copy of dw.
template <class T, bool kVector>
__global__ void __launch_bounds__(kTileThreads)
    linear_backward_weights_kernel(const T* x, const T* dy, float* partials, int64_t n, int64_t in,
                                   int64_t out, int64_t slice) {
  await_launch_before();
  const int64_t m0 = int64_t{blockIdx.x} * kTile, n0 = int64_t{blockIdx.y} * kTile;
  const int64_t begin = blockIdx.z * slice, end = begin + slice < n ? begin + slice : n;
  float sum[4][4] = {};
  tile_product(ColumnOperand<T, kVector>{dy, n, out}, ColumnOperand<T, kVector>{x, n, in}, m0, n0, begin, end,
               sum);
  float* to = partials + int64_t{blockIdx.z} * out * in;
  const int64_t column = n0 + threadIdx.x % 16 * 4;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t row = m0 + threadIdx.x / 16 * 4 + i;
    if (row >= out) break;
    for (int j = 0; j < 4 && column + j < in; ++j) to[row * in + column + j] = sum[i][j];
  }
}

namespace {
template <class F>
void shape_switch(const LinearShape& s, F&& f) {
  float_switch(s.dtype, [&](auto zero) {
    if (s.in % 4 == 0 && s.out % 4 == 0) return f(zero, std::true_type{});
    return f(zero, std::false_type{});
  });
}
}  // namespace

void linear_forward(const OpCall& c) {
  const LinearShape s = linear_shape(c.in[0], c.in[1]);
#ifdef __CUDACC__
  if (cublas_linear_forward(c, s)) return;
#endif
  shape_switch(s, [&](auto zero, auto vector) {
    using T = decltype(zero);
    GM_LAUNCH((linear_forward_kernel<T, vector.value>), dim3(tiles(s.n), tiles(s.out)), kTileThreads, 0,
              c.ctx.stream, c.in[0].as<T>(), c.in[1].as<T>(), c.in[2].as<float>(), c.out[0].as<T>(), s.n,
              s.in, s.out);
  });
}

// Workspace: partial dw of every slice, then partial dbias of every slice.
void linear_backward(const OpCall& c) {
  const LinearShape s = linear_shape(c.in[0], c.in[1]);
  const LinearSlices slices = linear_slices(s);
  const GradView &dx = c.din[0], &dw = c.din[1], &dbias = c.din[2];
  bool data_done = !dx, weights_done = !dw;
#ifdef __CUDACC__
  data_done = data_done || cublas_linear_backward_data(c, s);
  weights_done = weights_done || cublas_linear_backward_weights(c, s);
#endif
  float* partials = static_cast<float*>(c.workspace.data);
  shape_switch(s, [&](auto zero, auto vector) {
    using T = decltype(zero);
    const T* dy = c.dout[0].as<T>();
    if (!data_done)
      GM_LAUNCH((linear_backward_data_kernel<T, vector.value>), dim3(tiles(s.n), tiles(s.in)), kTileThreads,
                0, c.ctx.stream, dy, c.in[1].as<T>(), dx.view.as<T>(), s.n, s.in, s.out,
                dx.mode == GradMode::accumulate);
    if (!weights_done) {
      GM_LAUNCH((linear_backward_weights_kernel<T, vector.value>),
                dim3(tiles(s.out), tiles(s.in), unsigned(slices.count)), kTileThreads, 0, c.ctx.stream,
                c.in[0].as<T>(), dy, partials, s.n, s.in, s.out, slices.rows);
      launch_sum_partials(partials, s.out * s.in, slices.count, dw.view.as<float>(),
                          dw.mode == GradMode::accumulate, c.ctx);
    }
    if (dbias) {
      float* bias_partials = partials + slices.count * s.out * s.in;
      GM_LAUNCH((column_sums_kernel<T>), dim3(unsigned(ceil_div(s.out, 32)), unsigned(slices.count)),
                dim3(32, 8), 0, c.ctx.stream, dy, s.n, static_cast<int>(s.out), slices.rows, bias_partials);
      launch_sum_partials(bias_partials, s.out, slices.count, dbias.view.as<float>(),
                          dbias.mode == GradMode::accumulate, c.ctx);
    }
  });
}

}  // namespace gm::GM_BACKEND_NS
