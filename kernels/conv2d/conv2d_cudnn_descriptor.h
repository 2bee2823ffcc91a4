// Descriptors of cuDNN's backend C API. Private to conv2d_*cudnn.cpp.
#pragma once
#include <cudnn.h>

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace gm::cuda::cudnn_graph {

// cuDNN does not serve a problem: an answer, not a failure.
struct Refusal : std::runtime_error {
  cudnnStatus_t status;
  Refusal(cudnnStatus_t s, const std::string& what) : std::runtime_error(what), status(s) {}
};
inline void check(cudnnStatus_t s, const char* what) {
  if (s == CUDNN_STATUS_SUCCESS) return;
  char text[2048] = "";
  cudnnGetLastErrorString(text, sizeof text);
  throw Refusal(s, std::string(what) + ": " + cudnnGetErrorString(s) + " " + text);
}

class Descriptor {
 public:
  explicit Descriptor(cudnnBackendDescriptorType_t type) {
    check(cudnnBackendCreateDescriptor(type, &d_), "create descriptor");
  }
  ~Descriptor() {
    if (d_) cudnnBackendDestroyDescriptor(d_);
  }
  Descriptor(Descriptor&& o) noexcept : d_(std::exchange(o.d_, nullptr)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  cudnnBackendDescriptor_t raw() const { return d_; }

  template <class T>
  void set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, const std::vector<T>& values) {
    check(cudnnBackendSetAttribute(d_, name, type, static_cast<int64_t>(values.size()), values.data()),
          "set attribute");
  }
  template <class T>
  void set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, T value) {
    check(cudnnBackendSetAttribute(d_, name, type, 1, &value), "set attribute");
  }
  void set(cudnnBackendAttributeName_t name, const Descriptor& other) {
    set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, other.raw());
  }
  void finalize(const char* what) { check(cudnnBackendFinalize(d_), what); }

 private:
  cudnnBackendDescriptor_t d_ = nullptr;
};

/// All descriptors that an attribute holds, at most `most`; 0: as many as it announces, which not every
/// attribute does.
inline std::vector<Descriptor> descriptors(const Descriptor& of, cudnnBackendAttributeName_t name,
                                           cudnnBackendDescriptorType_t type, int64_t most,
                                           const char* what) {
  int64_t count = most;
  if (!most)
    check(cudnnBackendGetAttribute(of.raw(), name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, &count, nullptr), what);
  std::vector<Descriptor> found;
  std::vector<cudnnBackendDescriptor_t> raw;
  for (int64_t i = 0; i < count; ++i) raw.push_back(found.emplace_back(type).raw());
  if (count)
    check(cudnnBackendGetAttribute(of.raw(), name, CUDNN_TYPE_BACKEND_DESCRIPTOR, count, &count, raw.data()),
          what);
  // It may fill in fewer than it has announced.
  while (static_cast<int64_t>(found.size()) > count) found.pop_back();
  return found;
}

}  // namespace gm::cuda::cudnn_graph
