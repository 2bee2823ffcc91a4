#include "kernels/common/cuda_libraries.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>

#include <cstdio>

#include "kernels/common/cuda_messages.h"
#include "kernels/common/error.h"

namespace gm {

namespace {
constexpr size_t kWorkspace = size_t{64} << 20;
// Another number where kernels of ours that compete with the libraries' are new or change: what was chosen
// before is timed anew.
constexpr int kOwnKernels = 3;

static_assert(cudnn_status::version_mismatch == CUDNN_STATUS_SUBLIBRARY_VERSION_MISMATCH &&
              cudnn_status::loading_failed == CUDNN_STATUS_SUBLIBRARY_LOADING_FAILED &&
              cudnn_status::incompatible_driver == CUDNN_STATUS_NOT_SUPPORTED_INCOMPATIBLE_CUDA_DRIVER &&
              cudnn_status::sublibrary_unavailable == CUDNN_STATUS_NOT_SUPPORTED_SUBLIBRARY_UNAVAILABLE &&
              cudnn_status::host_allocation_failed == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED &&
              cudnn_status::device_allocation_failed == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED);
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
    fail(cuda_error_text("CUDA device " + std::to_string(device), e, cudaGetErrorString(e)));
  if (const std::string problem = cudnn_version_problem(cudnnGetVersion()); !problem.empty()) fail(problem);
  if (cudnnStatus_t s = cudnnCreate(&libraries->cudnn); s != CUDNN_STATUS_SUCCESS) {
    libraries->cudnn = nullptr;
    char text[1024] = "";
    cudnnGetLastErrorString(text, sizeof text);
    fail(cudnn_start_text(cudnnGetVersion(), s, cudnnGetErrorString(s), text));
  }
  if (cublasStatus_t s = cublasLtCreate(&libraries->cublas); s != CUBLAS_STATUS_SUCCESS) {
    libraries->cublas = nullptr;
    fail(std::string("cuBLASLt does not start: ") + cublasLtGetStatusString(s));
  }
  if (cudaError_t e = cudaMalloc(&libraries->workspace, kWorkspace); e == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // out of memory is not sticky: clear it
    size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    fail(full_card_text(device, kWorkspace, free, total));
  } else if (e != cudaSuccess) {
    fail(cuda_error_text("CUDA device " + std::to_string(device), e, cudaGetErrorString(e)));
  }
  libraries->workspace_bytes = kWorkspace;
  cudaDeviceProp card{};
  if (cudaError_t e = cudaGetDeviceProperties(&card, device); e != cudaSuccess)
    fail(cuda_error_text("CUDA device " + std::to_string(device), e, cudaGetErrorString(e)));
  libraries->origin = std::string(card.name) + ", sm_" + std::to_string(card.major) +
                      std::to_string(card.minor) + ", " + std::to_string(card.multiProcessorCount) +
                      " processors, cuDNN " + version_text(cudnnGetVersion()) + ", cuBLASLt " +
                      version_text(cublasLtGetVersion()) + ", own kernels " + std::to_string(kOwnKernels);
  return libraries;
}

bool being_captured(void* stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  return cudaStreamIsCapturing(static_cast<cudaStream_t>(stream), &status) == cudaSuccess &&
         status != cudaStreamCaptureStatusNone;
}

}  // namespace gm
