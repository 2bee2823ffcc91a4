// The emulated libraries: a cuBLASLt that multiplies, a cuDNN that serves nothing.
#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>
#include <gtest/gtest.h>

#include <tuple>
#include <vector>

namespace gm::test {
namespace {

float* put(const std::vector<float>& values) {
  float* data = nullptr;
  const size_t bytes = values.size() * sizeof(float);
  EXPECT_EQ(cudaMalloc(reinterpret_cast<void**>(&data), bytes), cudaSuccess);
  EXPECT_EQ(cudaMemcpy(data, values.data(), bytes, cudaMemcpyHostToDevice), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  return data;
}

// d (2, 3) = a^T b + bias + d, a being (4, 2) and b (4, 3), all column by column.
TEST(EmulatedLibraries, ProductWithTransposeBiasAndSum) {
  constexpr int kM = 2, kN = 3, kK = 4;
  std::vector<float> a(kK * kM), b(kK * kN), bias{10, 20}, d(kM * kN);
  for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i) - 3;
  for (size_t i = 0; i < b.size(); ++i) b[i] = static_cast<float>(i % 5);
  for (size_t i = 0; i < d.size(); ++i) d[i] = static_cast<float>(100 * i);
  std::vector<float> want = d;
  for (int j = 0; j < kN; ++j)
    for (int i = 0; i < kM; ++i) {
      want[j * kM + i] += bias[i];
      for (int k = 0; k < kK; ++k) want[j * kM + i] += a[i * kK + k] * b[j * kK + k];
    }

  cublasLtHandle_t handle;
  ASSERT_EQ(cublasLtCreate(&handle), CUBLAS_STATUS_SUCCESS);
  cublasLtMatmulDesc_t how;
  ASSERT_EQ(cublasLtMatmulDescCreate(&how, CUBLAS_COMPUTE_32F, CUDA_R_32F), CUBLAS_STATUS_SUCCESS);
  const int32_t transposed = CUBLAS_OP_T;
  const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
  const float* const bias_there = put(bias);
  for (const auto& [name, data, bytes] :
       {std::tuple<cublasLtMatmulDescAttributes_t, const void*, size_t>{CUBLASLT_MATMUL_DESC_TRANSA,
                                                                        &transposed, sizeof transposed},
        {CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue},
        {CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias_there, sizeof bias_there}})
    ASSERT_EQ(cublasLtMatmulDescSetAttribute(how, name, data, bytes), CUBLAS_STATUS_SUCCESS);
  cublasLtMatrixLayout_t la, lb, ld;
  ASSERT_EQ(cublasLtMatrixLayoutCreate(&la, CUDA_R_32F, kK, kM, kK), CUBLAS_STATUS_SUCCESS);
  ASSERT_EQ(cublasLtMatrixLayoutCreate(&lb, CUDA_R_32F, kK, kN, kK), CUBLAS_STATUS_SUCCESS);
  ASSERT_EQ(cublasLtMatrixLayoutCreate(&ld, CUDA_R_32F, kM, kN, kM), CUBLAS_STATUS_SUCCESS);

  cublasLtMatmulHeuristicResult_t found[8];
  int count = 0;
  ASSERT_EQ(cublasLtMatmulAlgoGetHeuristic(handle, how, la, lb, ld, ld, nullptr, 8, found, &count),
            CUBLAS_STATUS_SUCCESS);
  ASSERT_EQ(count, 2);
  float* const there_a = put(a);
  float* const there_b = put(b);
  void* workspace;
  ASSERT_EQ(cudaMalloc(&workspace, 1 << 20), cudaSuccess);
  cudaStream_t stream;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  const float one = 1;
  for (int i = 0; i < count; ++i) {
    float* const there_d = put(d);
    std::vector<float> got(d.size());
    auto multiply = [&](void* result) {
      return cublasLtMatmul(handle, how, &one, there_a, la, there_b, lb, &one, result, ld, result, ld,
                            &found[i].algo, workspace, 1 << 20, stream);
    };
    EXPECT_EQ(multiply(there_d), CUBLAS_STATUS_SUCCESS);
    ASSERT_EQ(cudaMemcpy(got.data(), there_d, d.size() * sizeof(float), cudaMemcpyDeviceToHost), cudaSuccess);
    EXPECT_EQ(got, d) << "nobody has waited for the product";
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    ASSERT_EQ(cudaMemcpy(got.data(), there_d, d.size() * sizeof(float), cudaMemcpyDeviceToHost), cudaSuccess);
    EXPECT_EQ(got, want);
    EXPECT_EQ(multiply(there_d + 4), CUBLAS_STATUS_EXECUTION_FAILED) << "it does not fit there";
    EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
    EXPECT_EQ(cudaFree(there_d), cudaSuccess);
  }
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
  for (void* data : {static_cast<void*>(there_a), static_cast<void*>(there_b), workspace,
                     static_cast<void*>(const_cast<float*>(bias_there))})
    EXPECT_EQ(cudaFree(data), cudaSuccess);
  for (cublasLtMatrixLayout_t layout : {la, lb, ld}) cublasLtMatrixLayoutDestroy(layout);
  cublasLtMatmulDescDestroy(how);
  cublasLtDestroy(handle);
}

TEST(EmulatedLibraries, CudnnStartsAndServesNothing) {
  EXPECT_GE(cudnnGetVersion(), 90000u);
  cudnnHandle_t handle;
  ASSERT_EQ(cudnnCreate(&handle), CUDNN_STATUS_SUCCESS);
  cudnnBackendDescriptor_t descriptor;
  EXPECT_EQ(cudnnBackendCreateDescriptor(CUDNN_BACKEND_TENSOR_DESCRIPTOR, &descriptor),
            CUDNN_STATUS_NOT_SUPPORTED);
  EXPECT_EQ(cudnnDestroy(handle), CUDNN_STATUS_SUCCESS);
}

}  // namespace
}  // namespace gm::test
