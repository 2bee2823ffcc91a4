// Work that is done again and again: call by call the first time, from then on as one graph where the device
// can capture it.
#pragma once
#include <functional>
#include <memory>
#include <string>

#include "engine/device.h"

namespace gm {

class RepeatedWork {
 public:
  /// `work` must not wait, and do the same each time: what changes lies in the device's memory. In its first
  /// run libraries make their plans and kernels are loaded, which a capture does not allow.
  RepeatedWork(Device& device, std::function<void()> work) : device_(device), work_(std::move(work)) {}

  void run() {
    if (warm_ && !graph_ && capture_error_.empty()) graph_ = device_.capture(work_, capture_error_);
    warm_ = true;
    graph_ ? graph_->start() : work_();
  }
  /// The work has moved to other memory: it is captured anew.
  void invalidate() { graph_.reset(); }
  bool captured() const { return graph_ != nullptr; }
  /// Why capturing failed, once it was tried; then the work goes on call by call.
  const std::string& capture_error() const { return capture_error_; }

 private:
  Device& device_;
  std::function<void()> work_;
  std::unique_ptr<CapturedGraph> graph_;
  std::string capture_error_;
  bool warm_ = false;
};

}  // namespace gm
