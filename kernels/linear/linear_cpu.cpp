#include "kernels/common/ceil_div.h"
#include "kernels/common/dispatch.h"
#include "kernels/common/op.h"
#include "kernels/common/parallel.h"
#include "kernels/linear/gemm_cpu.h"
#include "kernels/linear/linear.h"

// Tasks own blocks of the result and walk the whole depth, so no partial sums are shared between threads.

namespace gm::GM_CPU_NS {

namespace {
constexpr int64_t kBlock = 64;  // rows and columns of a forward task

// f32 values of a tensor: itself, or widened into the workspace at `cursor`.
const float* wide(const View& v, char*& cursor, ThreadPool& pool) {
  if (v.dtype() == DType::f32) return v.as<float>();
  float* to = reinterpret_cast<float*>(cursor);
  cursor += linear_wide_bytes(v.numel());
  const bf16* from = v.as<bf16>();
  pool.ranges(v.numel(), 16384, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) to[i] = to_float(from[i]);
  });
  return to;
}
}  // namespace

void linear_forward(const OpCall& c) {
  const LinearShape s = linear_shape(c.in[0], c.in[1]);
  ThreadPool& pool = *c.ctx.pool;
  char* cursor = static_cast<char*>(c.workspace.data);
  const float *x = wide(c.in[0], cursor, pool), *bias = c.in[2].as<float>();
  const int64_t row_blocks = ceil_div(s.n, kBlock), column_blocks = ceil_div(s.out, kBlock);
  float_switch(s.dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* w = c.in[1].as<T>();
    T* y = c.out[0].as<T>();
    pool.run(row_blocks * column_blocks, [&](int64_t task, int) {
      const int64_t n0 = task % row_blocks * kBlock, o0 = task / row_blocks * kBlock;
      const int64_t rows = std::min(kBlock, s.n - n0), columns = std::min(kBlock, s.out - o0);
      float sums[kBlock * kBlock];
      gemm_nt(rows, columns, s.in, x + n0 * s.in, s.in, w + o0 * s.in, s.in, sums, kBlock);
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns; ++j)
          y[(n0 + i) * s.out + o0 + j] = from_float<T>(sums[i * kBlock + j] + (bias ? bias[o0 + j] : 0.f));
    });
  });
}

void linear_backward(const OpCall& c) {
  const LinearShape s = linear_shape(c.in[0], c.in[1]);
  ThreadPool& pool = *c.ctx.pool;
  const GradView &dx = c.din[0], &dw = c.din[1], &dbias = c.din[2];
  char* cursor = static_cast<char*>(c.workspace.data);
  const float* dy = wide(c.dout[0], cursor, pool);
  constexpr int64_t columns = 2 * kPanelWidth;  // of dx and dw per task
  const int64_t tasks = ceil_div(s.in, columns);
  float_switch(s.dtype, [&](auto zero) {
    using T = decltype(zero);
    const T *w = c.in[1].as<T>(), *x = c.in[0].as<T>();
    if (dx) {
      T* out = dx.view.as<T>();
      constexpr int64_t kRows = 192;
      pool.run(tasks, [&](int64_t task, int thread) {
        const int64_t i0 = task * columns, n = std::min(columns, s.in - i0);
        float* scratch = static_cast<float*>(
            pool.scratch(thread, static_cast<size_t>(gemm_scratch(n) + kRows * n) * 4, 2));
        float* sums = scratch + gemm_scratch(n);
        for (int64_t row = 0; row < s.n; row += kRows) {
          const int64_t rows = std::min(kRows, s.n - row);
          gemm(rows, n, s.out, dy + row * s.out, s.out, 1, w + i0, s.in, sums, n, false, scratch);
          for (int64_t r = 0; r < rows; ++r) {
            T* to = out + (row + r) * s.in + i0;
            for (int64_t i = 0; i < n; ++i)
              to[i] = from_float<T>(dx.beta() != 0 ? to_float(to[i]) + sums[r * n + i] : sums[r * n + i]);
          }
        }
      });
    }
    if (dw) {
      float* out = dw.view.as<float>();
      pool.run(tasks, [&](int64_t task, int thread) {
        const int64_t i0 = task * columns, n = std::min(columns, s.in - i0);
        float* scratch =
            static_cast<float*>(pool.scratch(thread, static_cast<size_t>(gemm_scratch(n)) * 4, 2));
        gemm(s.out, n, s.n, dy, 1, s.out, x + i0, s.in, out + i0, s.in, dw.beta() != 0, scratch);
      });
    }
  });
  if (dbias) {
    float* out = dbias.view.as<float>();
    for (int64_t o = 0; o < s.out; ++o) out[o] = dbias.beta() != 0 ? out[o] : 0.f;
    for (int64_t n = 0; n < s.n; ++n)
      for (int64_t o = 0; o < s.out; ++o) out[o] += dy[n * s.out + o];
  }
}

}  // namespace gm::GM_CPU_NS
