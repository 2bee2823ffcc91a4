#include "engine/status_cuda.h"

#include <atomic>
#include <cstdio>

#include "kernels/common/cuda_messages.h"
#include "kernels/common/error.h"

namespace gm {

namespace {
std::atomic<cudaError_t> told{cudaSuccess};
}

void check_cuda(cudaError_t status, const std::string& what) {
  if (status == cudaSuccess) return;
  told = status;
  fail(cuda_error_text(what, status, cudaGetErrorString(status)));
}

void print_cuda(cudaError_t status, const char* what) noexcept {
  if (status != cudaSuccess && told.exchange(status) != status)
    std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(status));
}

}  // namespace gm
