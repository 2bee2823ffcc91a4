#include "engine/device_cuda.h"
#include "kernels/common/error.h"

namespace gm {

std::string no_cuda_reason() {
  return "this build has no CUDA (configured with GM_CUDA=OFF or without nvcc and cuDNN)";
}
std::unique_ptr<Device> open_cuda_device(int index, const DeviceOptions&) {
  fail("--device cuda:" + std::to_string(index) + ": " + no_cuda_reason());
}

}  // namespace gm
