// Events and CUDA graphs of a CUDA device.
#pragma once
#include <cuda_runtime.h>

#include <functional>
#include <memory>
#include <string>

#include "engine/device.h"

namespace gm {

/// An event that a waiting host thread sleeps on.
struct CudaEvent : Event {
  CudaEvent();
  ~CudaEvent() override;
  cudaEvent_t event = nullptr;
};

/// See Device::capture. Libraries must have made their plans before: nothing may be allocated in `work`.
std::unique_ptr<CapturedGraph> capture_cuda_graph(cudaStream_t stream, const std::function<void()>& work,
                                                  std::string& reason);

}  // namespace gm
