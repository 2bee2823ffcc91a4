// The CPU's own matrix products (kernels/linear/gemm_cpu.h) behind plain pointers, once for each instruction
// set: their tiles differ. Arguments as there.
#pragma once
#include <cstdint>

#include "kernels/common/dtype.h"

namespace gm::test {

template <class T>
struct GemmFunctionsOf {
  void (*gemm)(int64_t m, int64_t n, int64_t depth, const float* a, int64_t ai, int64_t ak, const T* b,
               int64_t ldb, float* c, int64_t ldc, bool accumulate, float* scratch);
  void (*gemm_tn)(int64_t m, int64_t n, int64_t depth, const T* a, int64_t lda, const T* b, int64_t ldb,
                  float* c, int64_t ldc, float* scratch);
  void (*gemm_nt)(int64_t m, int64_t n, int64_t depth, const float* a, int64_t lda, const T* b, int64_t ldb,
                  float* c, int64_t ldc);
  void (*pack_b)(int64_t depth, int64_t n, const T* b, int64_t bk, int64_t bj, float* packed);
};

struct GemmFunctions {
  int64_t lanes, panel_width;
  int64_t (*gemm_scratch)(int64_t n), (*gemm_tn_scratch)(int64_t m, int64_t n);
  int64_t (*packed_b_floats)(int64_t depth, int64_t n);
  void (*gemm_packed)(int64_t m, int64_t n, int64_t depth, const float* a, int64_t ai, int64_t ak,
                      const float* packed, float* c, int64_t ldc, bool accumulate);
  GemmFunctionsOf<float> f32;
  GemmFunctionsOf<bf16> half;
};

}  // namespace gm::test
