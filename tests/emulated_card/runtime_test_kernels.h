// Kernels for the tests of the emulated runtime.
#pragma once
#include <cuda_runtime_api.h>

namespace gm::test {

/// values[i] += add, by one block of `threads` threads.
cudaError_t start_add(int* values, int add, int threads, cudaStream_t stream, size_t dynamic_bytes = 0);
/// Its launch with <<< >>>.
void start_add_by_brackets(int* values, int add, int threads, cudaStream_t stream);
/// With grids and blocks as given; nothing is done.
cudaError_t start_nothing(dim3 grid, dim3 block, cudaStream_t stream);

const void* add_kernel();
/// A kernel for at most 64 threads with 1 KiB of static shared memory.
const void* bounded_kernel();

}  // namespace gm::test
