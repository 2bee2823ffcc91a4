#include "tests/emulated_card/runtime_test_kernels.h"

#include "kernels/common/simt.h"

namespace gm::test {

namespace {

using cuda::await_launch_before;

__global__ void add(int* values, int summand) {
  await_launch_before();
  values[threadIdx.x] += summand;
}
__global__ void nothing() { await_launch_before(); }
__global__ void __launch_bounds__(64) bounded(int* values) {
  GM_SHARED(int, row, [256]);
  await_launch_before();
  row[threadIdx.x] = values[threadIdx.x];
  __syncthreads();
  values[threadIdx.x] = row[63 - threadIdx.x];
}

cudaError_t start(const void* kernel, dim3 grid, dim3 block, void** arguments, cudaStream_t stream,
                  size_t dynamic_bytes) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = dynamic_bytes;
  config.stream = stream;
  return cudaLaunchKernelExC(&config, kernel, arguments);
}

}  // namespace

cudaError_t start_add(int* values, int summand, int threads, cudaStream_t stream, size_t dynamic_bytes) {
  void* arguments[] = {&values, &summand};
  return start(add_kernel(), dim3(1), dim3(threads), arguments, stream, dynamic_bytes);
}

void start_add_by_brackets(int* values, int summand, int threads, cudaStream_t stream) {
  add<<<1, threads, 0, stream>>>(values, summand);
}

cudaError_t start_nothing(dim3 grid, dim3 block, cudaStream_t stream) {
  return start(reinterpret_cast<const void*>(nothing), grid, block, nullptr, stream, 0);
}

const void* add_kernel() { return reinterpret_cast<const void*>(add); }
const void* bounded_kernel() { return reinterpret_cast<const void*>(bounded); }

}  // namespace gm::test
