// What calls of the CUDA runtime answer, as an error or as a line.
#pragma once
#include <cuda_runtime.h>

#include <string>

namespace gm {

/// Throws gm::Error: "upload: an illegal memory access was encountered".
void check_cuda(cudaError_t status, const std::string& what);
/// For destructors: the same on standard error. Once a kernel has failed, every call fails with its error;
/// who has thrown it has told it, and nobody tells it twice.
void print_cuda(cudaError_t status, const char* what) noexcept;

}  // namespace gm
