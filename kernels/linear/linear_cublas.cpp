#include "kernels/linear/linear_cublas.h"

#include <cublasLt.h>

#include <memory>

#include "kernels/common/cuda_libraries.h"

namespace gm::cuda {

namespace {

// D = op(A) op(B) [+ D] [+ bias], column-major as the library thinks. A row-major (rows, columns) matrix is
// column-major (columns, rows) with the same memory, so nothing is ever transposed in memory.
struct Problem {
  bool transpose_a, transpose_b;
  int64_t m, n, k, lda, ldb, ldd;
  DType operands, result;
  bool accumulate, bias;
};

cudaDataType_t type_of(DType t) { return t == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F; }

struct Layout {
  cublasLtMatrixLayout_t handle = nullptr;
  bool create(DType t, int64_t rows, int64_t columns, int64_t ld) {
    return cublasLtMatrixLayoutCreate(&handle, type_of(t), static_cast<uint64_t>(rows),
                                      static_cast<uint64_t>(columns), ld) == CUBLAS_STATUS_SUCCESS;
  }
  ~Layout() {
    if (handle) cublasLtMatrixLayoutDestroy(handle);
  }
};

struct Product : CudaPlan {
  cublasLtMatmulDesc_t operation = nullptr;
  Layout a, b, d;
  cublasLtMatmulAlgo_t algorithm{};
  bool failed = false;

  ~Product() override {
    if (operation) cublasLtMatmulDescDestroy(operation);
  }

  template <class T>
  bool attribute(cublasLtMatmulDescAttributes_t name, T value) {
    return cublasLtMatmulDescSetAttribute(operation, name, &value, sizeof value) == CUBLAS_STATUS_SUCCESS;
  }

  bool create(const CudaLibraries& libraries, const Problem& p) {
    const bool tf32 = libraries.tf32 && p.operands == DType::f32;
    if (cublasLtMatmulDescCreate(&operation, tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F,
                                 CUDA_R_32F) != CUBLAS_STATUS_SUCCESS)
      return false;
    const auto turn = [](bool t) { return static_cast<int32_t>(t ? CUBLAS_OP_T : CUBLAS_OP_N); };
    if (!attribute(CUBLASLT_MATMUL_DESC_TRANSA, turn(p.transpose_a)) ||
        !attribute(CUBLASLT_MATMUL_DESC_TRANSB, turn(p.transpose_b)))
      return false;
    if (p.bias && (!attribute(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS) ||
                   !attribute(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, static_cast<int32_t>(CUDA_R_32F))))
      return false;
    if (!a.create(p.operands, p.transpose_a ? p.k : p.m, p.transpose_a ? p.m : p.k, p.lda) ||
        !b.create(p.operands, p.transpose_b ? p.n : p.k, p.transpose_b ? p.k : p.n, p.ldb) ||
        !d.create(p.result, p.m, p.n, p.ldd))
      return false;
    return choose(libraries);
  }

  bool choose(const CudaLibraries& libraries) {
    cublasLtMatmulPreference_t raw = nullptr;
    if (cublasLtMatmulPreferenceCreate(&raw) != CUBLAS_STATUS_SUCCESS) return false;
    const std::unique_ptr<std::remove_pointer_t<cublasLtMatmulPreference_t>,
                          cublasStatus_t (*)(cublasLtMatmulPreference_t)>
        preference(raw, &cublasLtMatmulPreferenceDestroy);
    // Split sums are added in f32 and in a fixed order, never rounded to bf16 in between.
    const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_INPLACE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE,
                   alignment = 16;
    const uint64_t bytes = libraries.workspace_bytes;
    auto prefer = [&](cublasLtMatmulPreferenceAttributes_t name, const auto& value) {
      return cublasLtMatmulPreferenceSetAttribute(raw, name, &value, sizeof value) == CUBLAS_STATUS_SUCCESS;
    };
    if (!prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, bytes) ||
        !prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reductions))
      return false;
    for (auto name : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                      CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
      if (!prefer(name, alignment)) return false;
    cublasLtMatmulHeuristicResult_t found{};
    int count = 0;
    if (cublasLtMatmulAlgoGetHeuristic(libraries.cublas, operation, a.handle, b.handle, d.handle, d.handle,
                                       raw, 1, &found, &count) != CUBLAS_STATUS_SUCCESS ||
        count == 0 || found.state != CUBLAS_STATUS_SUCCESS)
      return false;
    algorithm = found.algo;
    return true;
  }
};

std::string key_of(const Problem& p, bool tf32) {
  std::string key = "gemm";
  for (int64_t v :
       {p.m, p.n, p.k, p.lda, p.ldb, p.ldd, int64_t(p.transpose_a), int64_t(p.transpose_b),
        int64_t(p.operands), int64_t(p.result), int64_t(p.accumulate), int64_t(p.bias), int64_t(tf32)})
    key += ' ' + std::to_string(v);
  return key;
}

bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

bool multiply(const Context& ctx, const Problem& p, const void* a, const void* b, const float* bias,
              void* d) {
  if (!ctx.libraries || !ctx.libraries->cublas || !aligned(a) || !aligned(b) || !aligned(d)) return false;
  CudaLibraries& libraries = *ctx.libraries;
  auto [it, created] = libraries.plans.try_emplace(key_of(p, libraries.tf32));
  if (created)
    if (auto made = std::make_unique<Product>(); made->create(libraries, p)) it->second = std::move(made);
  auto* product = static_cast<Product*>(it->second.get());
  if (!product || product->failed) return false;
  if (bias && !product->attribute(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias)) return false;
  const float alpha = 1.f, beta = p.accumulate ? 1.f : 0.f;
  const cublasStatus_t s =
      cublasLtMatmul(libraries.cublas, product->operation, &alpha, a, product->a.handle, b, product->b.handle,
                     &beta, d, product->d.handle, d, product->d.handle, &product->algorithm,
                     libraries.workspace, libraries.workspace_bytes, static_cast<cudaStream_t>(ctx.stream));
  if (s == CUBLAS_STATUS_SUCCESS) return true;
  if (s == CUBLAS_STATUS_EXECUTION_FAILED) fail("cuBLASLt: the product failed on the device");
  if (being_captured(ctx.stream))
    fail(std::string("cuBLASLt refuses capture: ") + cublasLtGetStatusString(s));
  product->failed = true;
  return false;
}

}  // namespace

// y^T (out, n) = w x^T: w is column-major (in, out), transposed; x^T is column-major (in, n).
bool cublas_linear_forward(const OpCall& call, const LinearShape& s) {
  return multiply(call.ctx,
                  {.transpose_a = true,
                   .transpose_b = false,
                   .m = s.out,
                   .n = s.n,
                   .k = s.in,
                   .lda = s.in,
                   .ldb = s.in,
                   .ldd = s.out,
                   .operands = s.dtype,
                   .result = s.dtype,
                   .accumulate = false,
                   .bias = call.in[2].data != nullptr},
                  call.in[1].data, call.in[0].data, call.in[2].as<float>(), call.out[0].data);
}

// dx^T (in, n) = w^T dy^T
bool cublas_linear_backward_data(const OpCall& call, const LinearShape& s) {
  return multiply(call.ctx,
                  {.transpose_a = false,
                   .transpose_b = false,
                   .m = s.in,
                   .n = s.n,
                   .k = s.out,
                   .lda = s.in,
                   .ldb = s.out,
                   .ldd = s.in,
                   .operands = s.dtype,
                   .result = s.dtype,
                   .accumulate = call.din[0].mode == GradMode::accumulate,
                   .bias = false},
                  call.in[1].data, call.dout[0].data, nullptr, call.din[0].view.data);
}

// dw^T (in, out) = x^T dy
bool cublas_weight_gradient(const Context& ctx, const LinearShape& s, const void* x, const void* dy,
                            float* dw, bool accumulate) {
  return multiply(ctx,
                  {.transpose_a = false,
                   .transpose_b = true,
                   .m = s.in,
                   .n = s.out,
                   .k = s.n,
                   .lda = s.in,
                   .ldb = s.out,
                   .ldd = s.in,
                   .operands = s.dtype,
                   .result = DType::f32,
                   .accumulate = accumulate,
                   .bias = false},
                  x, dy, nullptr, dw);
}
bool cublas_linear_backward_weights(const OpCall& call, const LinearShape& s) {
  return cublas_weight_gradient(call.ctx, s, call.in[0].data, call.dout[0].data, call.din[1].view.as<float>(),
                                call.din[1].mode == GradMode::accumulate);
}

}  // namespace gm::cuda
