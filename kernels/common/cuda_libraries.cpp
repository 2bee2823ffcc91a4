#include "kernels/common/cuda_libraries.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>

#include <cstdio>

#include "kernels/common/error.h"

namespace gm {

namespace {
constexpr size_t kWorkspace = size_t{64} << 20;
constexpr size_t kOldestCudnn = 90000;  // the graph API in the form used here

std::string version_text(size_t v) {
  return std::to_string(v / 10000) + "." + std::to_string(v / 100 % 100) + "." + std::to_string(v % 100);
}
}  // namespace

void CudaLibrariesDeleter::operator()(CudaLibraries* libraries) const noexcept {
  int before = 0;
  cudaGetDevice(&before);
  cudaSetDevice(libraries->device);
  libraries->plans.clear();
  if (libraries->cudnn && cudnnDestroy(libraries->cudnn) != CUDNN_STATUS_SUCCESS)
    std::fprintf(stderr, "warning: cuDNN did not close cleanly\n");
  if (libraries->cublas) cublasLtDestroy(libraries->cublas);
  cudaFree(libraries->workspace);
  cudaSetDevice(before);
  delete libraries;
}

CudaLibrariesPtr make_cuda_libraries(int device) {
  CudaLibrariesPtr libraries(new CudaLibraries);
  libraries->device = device;
  if (cudaError_t e = cudaSetDevice(device); e != cudaSuccess)
    fail("CUDA device " + std::to_string(device) + ": " + cudaGetErrorString(e));
  if (const size_t version = cudnnGetVersion(); version < kOldestCudnn)
    fail("cuDNN " + version_text(version) + " is too old: 9.0 or newer is needed");
  if (cudnnStatus_t s = cudnnCreate(&libraries->cudnn); s != CUDNN_STATUS_SUCCESS) {
    libraries->cudnn = nullptr;
    char text[1024] = "";
    cudnnGetLastErrorString(text, sizeof text);
    fail("cuDNN " + version_text(cudnnGetVersion()) + " does not start: " + cudnnGetErrorString(s) +
         (text[0] ? std::string(" (") + text + ")" : "") + "; are all libcudnn_*.so.9 on the library path?");
  }
  if (cublasStatus_t s = cublasLtCreate(&libraries->cublas); s != CUBLAS_STATUS_SUCCESS) {
    libraries->cublas = nullptr;
    fail(std::string("cuBLASLt does not start: ") + cublasLtGetStatusString(s));
  }
  if (cudaError_t e = cudaMalloc(&libraries->workspace, kWorkspace); e != cudaSuccess)
    fail(std::string("no room for the 64 MiB library workspace: ") + cudaGetErrorString(e));
  libraries->workspace_bytes = kWorkspace;
  cudaDeviceProp card{};
  if (cudaError_t e = cudaGetDeviceProperties(&card, device); e != cudaSuccess)
    fail("CUDA device " + std::to_string(device) + ": " + cudaGetErrorString(e));
  libraries->origin = std::string(card.name) + ", sm_" + std::to_string(card.major) +
                      std::to_string(card.minor) + ", " + std::to_string(card.multiProcessorCount) +
                      " processors, cuDNN " + version_text(cudnnGetVersion()) + ", cuBLASLt " +
                      version_text(cublasLtGetVersion());
  return libraries;
}

bool being_captured(void* stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  return cudaStreamIsCapturing(static_cast<cudaStream_t>(stream), &status) == cudaSuccess &&
         status != cudaStreamCaptureStatusNone;
}

}  // namespace gm
