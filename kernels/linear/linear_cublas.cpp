#include "kernels/linear/linear_cublas.h"

#include <cublasLt.h>

#include <memory>
#include <vector>

#include "kernels/common/cuda_libraries.h"
#include "kernels/common/cuda_timing.h"
#include "kernels/linear/gemm_problem.h"

namespace gm::cuda {

namespace {

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

// Algorithms timed for a problem.
constexpr int kTimed = 8;

// A handle of the library and the way to close it.
template <class T, cublasStatus_t (*kDestroy)(T)>
struct Handle {
  T raw = nullptr;
  Handle() = default;
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() {
    if (raw) kDestroy(raw);
  }
};

struct Product : CudaPlan {
  Handle<cublasLtMatmulDesc_t, &cublasLtMatmulDescDestroy> operation;
  Layout a, b, d;
  cublasLtMatmulAlgo_t algorithm{};
  bool accumulate = false, failed = false;

  template <class T>
  bool attribute(cublasLtMatmulDescAttributes_t name, T value) {
    return cublasLtMatmulDescSetAttribute(operation.raw, name, &value, sizeof value) == CUBLAS_STATUS_SUCCESS;
  }

  // Everything but the algorithm.
  bool describe(const CudaLibraries& libraries, const GemmProblem& p) {
    accumulate = p.accumulate;
    const bool tf32 = libraries.tf32 && p.operands == DType::f32;
    if (cublasLtMatmulDescCreate(&operation.raw, tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F,
                                 CUDA_R_32F) != CUBLAS_STATUS_SUCCESS)
      return false;
    const auto turn = [](bool t) { return static_cast<int32_t>(t ? CUBLAS_OP_T : CUBLAS_OP_N); };
    if (!attribute(CUBLASLT_MATMUL_DESC_TRANSA, turn(p.transpose_a)) ||
        !attribute(CUBLASLT_MATMUL_DESC_TRANSB, turn(p.transpose_b)))
      return false;
    if (p.bias && (!attribute(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS) ||
                   !attribute(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, static_cast<int32_t>(CUDA_R_32F))))
      return false;
    return a.create(p.operands, p.transpose_a ? p.k : p.m, p.transpose_a ? p.m : p.k, p.lda) &&
           b.create(p.operands, p.transpose_b ? p.n : p.k, p.transpose_b ? p.k : p.n, p.ldb) &&
           d.create(p.result, p.m, p.n, p.ldd);
  }

  // The library's algorithms in its order of preference, at most `most`.
  std::vector<cublasLtMatmulAlgo_t> algorithms(const CudaLibraries& libraries, int most) const {
    Handle<cublasLtMatmulPreference_t, &cublasLtMatmulPreferenceDestroy> preference;
    if (cublasLtMatmulPreferenceCreate(&preference.raw) != CUBLAS_STATUS_SUCCESS) return {};
    // Split sums are added in f32 and in a fixed order, never rounded to bf16 in between.
    const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_INPLACE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE,
                   alignment = 16;
    const uint64_t bytes = libraries.workspace_bytes;
    auto prefer = [&](cublasLtMatmulPreferenceAttributes_t name, const auto& value) {
      return cublasLtMatmulPreferenceSetAttribute(preference.raw, name, &value, sizeof value) ==
             CUBLAS_STATUS_SUCCESS;
    };
    if (!prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, bytes) ||
        !prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reductions))
      return {};
    for (auto name : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                      CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
      if (!prefer(name, alignment)) return {};
    std::vector<cublasLtMatmulHeuristicResult_t> found(static_cast<size_t>(most));
    int count = 0;
    if (cublasLtMatmulAlgoGetHeuristic(libraries.cublas, operation.raw, a.handle, b.handle, d.handle,
                                       d.handle, preference.raw, most, found.data(),
                                       &count) != CUBLAS_STATUS_SUCCESS)
      return {};
    std::vector<cublasLtMatmulAlgo_t> usable;
    for (int i = 0; i < count; ++i)
      if (found[i].state == CUBLAS_STATUS_SUCCESS) usable.push_back(found[i].algo);
    return usable;
  }

  bool serves(const CudaLibraries& libraries, const cublasLtMatmulAlgo_t& what) const {
    cublasLtMatmulHeuristicResult_t result{};
    return cublasLtMatmulAlgoCheck(libraries.cublas, operation.raw, a.handle, b.handle, d.handle, d.handle,
                                   &what, &result) == CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= libraries.workspace_bytes;
  }

  cublasStatus_t start(const CudaLibraries& libraries, const cublasLtMatmulAlgo_t& how, const void* x,
                       const void* y, void* result, void* stream) const {
    const float alpha = 1.f, beta = accumulate ? 1.f : 0.f;
    return cublasLtMatmul(libraries.cublas, operation.raw, &alpha, x, a.handle, y, b.handle, &beta, result,
                          d.handle, result, d.handle, &how, libraries.workspace, libraries.workspace_bytes,
                          static_cast<cudaStream_t>(stream));
  }

  // The algorithm that the choices name; else, where plans are timed and nothing is being captured, the
  // fastest of the first few, which becomes the choice; else the first. The timing writes to memory of its
  // own. False when the library has none.
  bool choose(CudaLibraries& libraries, const GemmProblem& p, const void* x, const void* y, void* stream) {
    const std::string problem = plan_key(p, libraries.tf32);
    if (const std::string* chosen = libraries.choices.find(problem)) {
      if (read_algorithm(*chosen, algorithm.data) && serves(libraries, algorithm)) return true;
      libraries.choices.forget(problem);
    }
    const bool timed = libraries.timing && !being_captured(stream);
    const std::vector<cublasLtMatmulAlgo_t> found = algorithms(libraries, timed ? kTimed : 1);
    if (found.empty()) return false;
    size_t best = 0;
    if (timed && found.size() > 1) {
      const CudaScratch result(static_cast<size_t>(p.ldd * p.n) * dtype_bytes(p.result));
      best = kNoCandidate;
      if (result.data())
        best = fastest_candidate(time_candidates(stream, found.size(), [&](size_t i) {
          return start(libraries, found[i], x, y, result.data(), stream) == CUBLAS_STATUS_SUCCESS;
        }));
    }
    algorithm = found[best == kNoCandidate ? 0 : best];
    if (timed && best != kNoCandidate) libraries.choices.choose(problem, algorithm_name(algorithm.data));
    return true;
  }
};

bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

bool multiply(const Context& ctx, const GemmProblem& p, const void* a, const void* b, const float* bias,
              void* d) {
  if (!ctx.libraries || !ctx.libraries->cublas || !aligned(a) || !aligned(b) || !aligned(d)) return false;
  CudaLibraries& libraries = *ctx.libraries;
  auto [it, created] = libraries.plans.try_emplace(plan_key(p, libraries.tf32));
  if (created) {
    auto made = std::make_unique<Product>();
    if (made->describe(libraries, p) && (!bias || made->attribute(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias)) &&
        made->choose(libraries, p, a, b, ctx.stream))
      it->second = std::move(made);
  }
  auto* product = static_cast<Product*>(it->second.get());
  if (!product || product->failed) return false;
  if (bias && !product->attribute(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias)) return false;
  const cublasStatus_t s = product->start(libraries, product->algorithm, a, b, d, ctx.stream);
  if (s == CUBLAS_STATUS_SUCCESS) return true;
  if (s == CUBLAS_STATUS_EXECUTION_FAILED) fail("cuBLASLt: the product failed on the device");
  if (being_captured(ctx.stream))
    fail(std::string("cuBLASLt refuses capture: ") + cublasLtGetStatusString(s));
  product->failed = true;
  return false;
}

}  // namespace

// y^T (out, n) = w x^T: w is column-major (in, out), transposed; x^T is column-major (in, n).
bool cublas_product(const Context& ctx, const LinearShape& s, const void* x, const void* w, const float* bias,
                    void* y) {
  return multiply(ctx,
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
                   .bias = bias != nullptr},
                  w, x, bias, y);
}
bool cublas_linear_forward(const OpCall& call, const LinearShape& s) {
  return cublas_product(call.ctx, s, call.in[0].data, call.in[1].data, call.in[2].as<float>(),
                        call.out[0].data);
}

// dx^T (in, n) = w^T dy^T
bool cublas_data_gradient(const Context& ctx, const LinearShape& s, const void* w, const void* dy, void* dx,
                          bool accumulate) {
  return multiply(ctx,
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
                   .accumulate = accumulate,
                   .bias = false},
                  w, dy, nullptr, dx);
}
bool cublas_linear_backward_data(const OpCall& call, const LinearShape& s) {
  return cublas_data_gradient(call.ctx, s, call.in[1].data, call.dout[0].data, call.din[0].view.data,
                              call.din[0].mode == GradMode::accumulate);
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
