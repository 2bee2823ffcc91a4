// Second stage of a sum over many blocks: the partial sums that each block left, added in a fixed order,
// eights of them in f32 and those in f64.
#pragma once
#include "kernels/common/ceil_div.h"
#include "kernels/common/context.h"
#include "kernels/common/simt.h"

namespace gm::GM_BACKEND_NS {

// out[i] = or += the sum over blocks of partial[block][i]. Block: 32 values x 8 rows; row r adds every 8th
// block's partial, then row 0 adds the rows in order.
static __global__ __launch_bounds__(256) void sum_partials_kernel(const float* partial, int64_t n, int blocks,
                                                                  float* out, bool accumulate) {
  await_launch_before();
  GM_SHARED(double, rows, [8][32]);
  const int64_t i = int64_t{blockIdx.x} * 32 + threadIdx.x;
  double sum = 0;
  if (i < n) {
    for (int b = static_cast<int>(threadIdx.y); b < blocks; b += 64) {
      float eight = 0.f;  // in f32: f64 is 64 times slower on GeForce cards
#pragma unroll
      for (int u = 0; u < 64; u += 8) eight += b + u < blocks ? partial[(b + u) * n + i] : 0.f;
      sum += static_cast<double>(eight);
    }
  }
  rows[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || i >= n) return;
#pragma unroll
  for (int r = 1; r < 8; ++r) sum += rows[r][threadIdx.x];
  out[i] = static_cast<float>(sum) + (accumulate ? out[i] : 0.f);
}
inline void launch_sum_partials(const float* partial, int64_t n, int blocks, float* out, bool accumulate,
                                const Context& ctx) {
  GM_LAUNCH(sum_partials_kernel, static_cast<unsigned>(ceil_div(n, 32)), dim3(32, 8), 0, ctx.stream, partial,
            n, blocks, out, accumulate);
}

}  // namespace gm::GM_BACKEND_NS
