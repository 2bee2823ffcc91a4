// Owned device memory.
#pragma once
#include <memory>
#include <utility>
#include <vector>

#include "engine/device.h"
#include "kernels/common/view.h"

namespace gm {

/// A block of device memory; freed with the object. The device must outlive it.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Device& device, size_t bytes) : device_(&device), bytes_(bytes) {
    if (bytes) data_ = device.allocate(bytes);
  }
  ~Buffer() { reset(); }
  Buffer(Buffer&& o) noexcept { swap(o); }
  Buffer& operator=(Buffer&& o) noexcept {
    if (this != &o) {
      reset();
      swap(o);
    }
    return *this;
  }

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  Device& device() const { return *device_; }
  View view(size_t offset, const TensorSpec& spec) const {
    GM_CHECK(offset + spec.bytes() <= bytes_, "view past the end of its buffer");
    return View{static_cast<char*>(data_) + offset, spec};
  }
  template <class T>
  std::vector<T> download() const {
    std::vector<T> host(bytes_ / sizeof(T));
    if (bytes_) device_->download(host.data(), data_, host.size() * sizeof(T));
    return host;
  }
  template <class T>
  void upload(const std::vector<T>& host) const {
    GM_CHECK(host.size() * sizeof(T) <= bytes_, "upload larger than its buffer");
    if (!host.empty()) device_->upload(data_, host.data(), host.size() * sizeof(T));
  }

 private:
  void reset() {
    if (data_) device_->release(data_);
    data_ = nullptr;
    bytes_ = 0;
  }
  void swap(Buffer& o) {
    std::swap(device_, o.device_);
    std::swap(data_, o.data_);
    std::swap(bytes_, o.bytes_);
  }
  Device* device_ = nullptr;
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

/// Host memory that uploads and downloads may use without waiting; freed with the object.
class HostBuffer {
 public:
  HostBuffer() = default;
  HostBuffer(Device& device, size_t bytes)
      : data_(bytes ? device.allocate_host(bytes) : nullptr, Release{&device}), bytes_(bytes) {}
  char* data() const { return static_cast<char*>(data_.get()); }
  size_t bytes() const { return bytes_; }

 private:
  struct Release {
    Device* device;
    void operator()(void* data) const noexcept { device->release_host(data); }
  };
  std::unique_ptr<void, Release> data_;
  size_t bytes_ = 0;
};

}  // namespace gm
