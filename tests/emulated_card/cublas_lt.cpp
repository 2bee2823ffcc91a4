// cuBLASLt's products, computed by the host: queued in their stream, their pointers checked, f32 sums. Two
// algorithms that add in different orders; the second one spoils the workspace, as a real one may.
#include <cublasLt.h>

#include <bit>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "kernels/common/dtype.h"
#include "tests/emulated_card/card.h"

using namespace gm::emulated;

namespace {

struct Layout {
  cudaDataType type;
  size_t rows, columns, ld;

  size_t element() const { return type == CUDA_R_32F ? 4 : 2; }
  size_t bytes() const { return columns ? ((columns - 1) * ld + rows) * element() : 0; }
};

struct Description {
  cublasComputeType_t compute;
  int32_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N, bias_type = CUDA_R_32F;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void* bias = nullptr;
};

constexpr uint64_t kAlgorithms = 2, kFirst = 0xE0;  // data[0] of an algorithm: kFirst + its number
constexpr size_t kWorkspace = 64 << 10;             // of the second

const Layout& of(cublasLtMatrixLayout_t layout) { return *reinterpret_cast<const Layout*>(layout); }
Description& of(cublasLtMatmulDesc_t description) { return *reinterpret_cast<Description*>(description); }

float read(const void* data, cudaDataType type, size_t i) {
  if (type == CUDA_R_32F) return static_cast<const float*>(data)[i];
  return gm::to_float(static_cast<const gm::bf16*>(data)[i]);
}

void write(void* data, cudaDataType type, size_t i, float value) {
  if (type == CUDA_R_32F)
    static_cast<float*>(data)[i] = value;
  else
    static_cast<gm::bf16*>(data)[i] = gm::to_bf16(value);
}

float to_tf32(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7F800000) == 0x7F800000) return value;
  bits += 0xFFF + ((bits >> 13) & 1);
  return std::bit_cast<float>(bits & ~0x1FFFu);
}

/// One after the other every row of op(A), or column of op(B), of k elements.
std::vector<float> vectors(const void* data, const Layout& layout, bool along_columns, bool tf32) {
  std::vector<float> values;
  values.reserve(layout.rows * layout.columns);
  const size_t outer = along_columns ? layout.columns : layout.rows,
               inner = along_columns ? layout.rows : layout.columns;
  for (size_t o = 0; o < outer; ++o)
    for (size_t i = 0; i < inner; ++i) {
      const float value = read(data, layout.type, along_columns ? o * layout.ld + i : i * layout.ld + o);
      values.push_back(tf32 ? to_tf32(value) : value);
    }
  return values;
}

float dot(const float* a, const float* b, size_t k, uint64_t algorithm) {
  constexpr size_t kLanes = 8;
  if (algorithm == 0) {
    float lanes[kLanes] = {};
    size_t i = 0;
    for (; i + kLanes <= k; i += kLanes)
      for (size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += a[i + lane] * b[i + lane];
    for (; i < k; ++i) lanes[i % kLanes] += a[i] * b[i];
    for (size_t half = kLanes / 2; half; half /= 2)
      for (size_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
    return lanes[0];
  }
  float sum = 0;
  for (size_t i = k; i-- > 0;) sum += a[i] * b[i];
  return sum;
}

struct Product {
  Description how;
  Layout a, b, c, d;
  const void *a_data, *b_data, *c_data;
  void *d_data, *workspace;
  float alpha, beta;
  uint64_t algorithm;

  size_t rows() const { return how.transpose_a == CUBLAS_OP_N ? a.rows : a.columns; }
  size_t columns() const { return how.transpose_b == CUBLAS_OP_N ? b.columns : b.rows; }
  size_t inner() const { return how.transpose_a == CUBLAS_OP_N ? a.columns : a.rows; }
  bool fits() const {
    return inner() == (how.transpose_b == CUBLAS_OP_N ? b.rows : b.columns) && d.rows == rows() &&
           d.columns == columns() && c.rows == d.rows && c.columns == d.columns;
  }
  bool in_memory(const Memory& global) const {
    auto held = [&](const void* data, size_t bytes) {
      return bytes == 0 || global.holds(reinterpret_cast<uintptr_t>(data), bytes);
    };
    return held(a_data, a.bytes()) && held(b_data, b.bytes()) && held(d_data, d.bytes()) &&
           (beta == 0 || held(c_data, c.bytes())) &&
           (how.epilogue != CUBLASLT_EPILOGUE_BIAS || held(how.bias, rows() * sizeof(float))) &&
           (algorithm == 0 || held(workspace, kWorkspace));
  }
  void run(const Memory& global) const {
    if (!in_memory(global)) throw std::runtime_error("cuBLASLt: a product needs memory that has been freed");
    if (algorithm == 1) std::memset(workspace, 0xFF, kWorkspace);
    const bool tf32 = how.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    const std::vector<float> left = vectors(a_data, a, how.transpose_a != CUBLAS_OP_N, tf32),
                             right = vectors(b_data, b, how.transpose_b == CUBLAS_OP_N, tf32);
    const size_t k = inner();
    for (size_t j = 0; j < columns(); ++j)
      for (size_t i = 0; i < rows(); ++i) {
        float value = alpha * dot(left.data() + i * k, right.data() + j * k, k, algorithm);
        if (beta != 0) value += beta * read(c_data, c.type, j * c.ld + i);
        if (how.epilogue == CUBLASLT_EPILOGUE_BIAS) value += static_cast<const float*>(how.bias)[i];
        write(d_data, d.type, j * d.ld + i, value);
      }
  }
};

cublasStatus_t served(cublasLtMatmulDesc_t description, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                      cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d) {
  const Product product{of(description), of(a),   of(b),   of(c), of(d), nullptr, nullptr,
                        nullptr,         nullptr, nullptr, 1,     0,     0};
  for (const Layout* layout : {&product.a, &product.b, &product.c, &product.d})
    if ((layout->type != CUDA_R_32F && layout->type != CUDA_R_16BF) || layout->ld < layout->rows)
      return CUBLAS_STATUS_NOT_SUPPORTED;
  return product.fits() ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

cublasLtMatmulHeuristicResult_t offer(uint64_t algorithm) {
  cublasLtMatmulHeuristicResult_t result{};
  result.algo.data[0] = kFirst + algorithm;
  result.workspaceSize = algorithm == 1 ? kWorkspace : 0;
  result.state = CUBLAS_STATUS_SUCCESS;
  result.wavesCount = 1;
  return result;
}

template <class T>
cublasStatus_t set(T& place, const void* data, size_t bytes) {
  if (bytes != sizeof place) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&place, data, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace

struct cublasLtContext {};

size_t cublasLtGetVersion() { return CUBLAS_VERSION; }
const char* cublasLtGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_SUCCESS ? "CUBLAS_STATUS_SUCCESS" : "a status of the emulated cuBLASLt";
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = new cublasLtContext;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, uint64_t rows,
                                          uint64_t columns, int64_t ld) {
  *layout =
      reinterpret_cast<cublasLtMatrixLayout_t>(new Layout{type, rows, columns, static_cast<size_t>(ld)});
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete reinterpret_cast<Layout*>(layout);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* description, cublasComputeType_t compute,
                                        cudaDataType_t) {
  *description = reinterpret_cast<cublasLtMatmulDesc_t>(new Description{.compute = compute});
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t description) {
  delete &of(description);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t description,
                                              cublasLtMatmulDescAttributes_t name, const void* data,
                                              size_t bytes) {
  Description& d = of(description);
  switch (name) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return set(d.transpose_a, data, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return set(d.transpose_b, data, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return set(d.epilogue, data, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return set(d.bias, data, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
      return set(d.bias_type, data, bytes);
    default:
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  *preference = new cublasLtMatmulPreferenceOpaque_t{};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete preference;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t,
                                                    cublasLtMatmulPreferenceAttributes_t, const void*,
                                                    size_t) {
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t description,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t, int most,
                                              cublasLtMatmulHeuristicResult_t results[], int* count) {
  *count = 0;
  if (const cublasStatus_t status = served(description, a, b, c, d); status != CUBLAS_STATUS_SUCCESS)
    return status;
  for (uint64_t i = 0; i < kAlgorithms && *count < most; ++i) results[(*count)++] = offer(i);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t description,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t* algorithm,
                                       cublasLtMatmulHeuristicResult_t* result) {
  const uint64_t number = algorithm->data[0] - kFirst;
  if (number >= kAlgorithms) return CUBLAS_STATUS_INVALID_VALUE;
  *result = offer(number);
  return served(description, a, b, c, d);
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t description, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
                              cublasLtMatrixLayout_t c_layout, void* d, cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t* algorithm, void* workspace, size_t workspace_bytes,
                              cudaStream_t stream) {
  if (const cublasStatus_t status = served(description, a_layout, b_layout, c_layout, d_layout);
      status != CUBLAS_STATUS_SUCCESS)
    return status;
  const Product product{of(description),
                        of(a_layout),
                        of(b_layout),
                        of(c_layout),
                        of(d_layout),
                        a,
                        b,
                        c,
                        d,
                        workspace,
                        *static_cast<const float*>(alpha),
                        *static_cast<const float*>(beta),
                        algorithm ? algorithm->data[0] - kFirst : 0};
  if (product.algorithm >= kAlgorithms) return CUBLAS_STATUS_INVALID_VALUE;
  if (product.algorithm == 1 && workspace_bytes < kWorkspace) return CUBLAS_STATUS_INVALID_VALUE;
  for (const void* data : {a, b, static_cast<const void*>(d)})
    if (reinterpret_cast<uintptr_t>(data) % 16) return CUBLAS_STATUS_NOT_SUPPORTED;  // as was preferred
  const cudaError_t status = with_card([&](Card& card) {
    const int here = card.selected();
    if (!product.in_memory(card.global(here)))
      return complain(cudaErrorInvalidValue, "cuBLASLt: a product of memory that is not the card's");
    return card.submit(stream, [product, here, &card] { product.run(card.global(here)); });
  });
  return status == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}
