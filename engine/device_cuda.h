// The CUDA device. In builds without CUDA device_no_cuda.cpp takes the place of device_cuda.cpp.
#pragma once
#include <memory>

#include "engine/device.h"

namespace gm {

/// Opens card `index`; throws gm::Error when it does not exist or its architecture has no code in this
/// binary.
std::unique_ptr<Device> open_cuda_device(int index, const DeviceOptions& options);

}  // namespace gm
