#include "kernels/common/cuda_trial.h"

#include <cuda_runtime_api.h>

#include "kernels/common/cuda_results.h"

namespace gm {

namespace {
void check(cudaError_t status) {
  if (status != cudaSuccess) fail(std::string("trial of a kernel: ") + cudaGetErrorString(status));
}
}  // namespace

void* CudaTrial::allocate(size_t bytes) {
  memory_.push_back(std::make_unique<CudaScratch>(bytes));
  return memory_.back()->data();
}
void CudaTrial::copy(void* to, const void* from, size_t bytes) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, static_cast<cudaStream_t>(stream_)));
}
void CudaTrial::spoil(const View& tensor) {
  check(cudaMemsetAsync(tensor.data, 0xFF, tensor.spec.bytes(), static_cast<cudaStream_t>(stream_)));
}
std::vector<float> CudaTrial::read(const View& tensor) { return first_and_last(tensor, stream_); }
std::vector<double> CudaTrial::time(size_t count, const std::function<bool(size_t)>& start) {
  return time_candidates(stream_, count, start);
}

}  // namespace gm
