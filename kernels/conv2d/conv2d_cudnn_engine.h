// What cuDNN tells of an engine configuration before a plan is made of it. Private to conv2d_*cudnn.cpp.
#pragma once
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "kernels/conv2d/conv2d_cudnn_descriptor.h"

namespace gm::cuda::cudnn_graph {

/// The engine of a configuration: the kernel, without its settings.
class Engine {
 public:
  explicit Engine(const Descriptor& configuration) : d_(CUDNN_BACKEND_ENGINE_DESCRIPTOR) {
    cudnnBackendDescriptor_t raw = d_.raw();
    int64_t count = 0;
    check(cudnnBackendGetAttribute(configuration.raw(), CUDNN_ATTR_ENGINECFG_ENGINE,
                                   CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count, &raw),
          "engine of a configuration");
  }
  int64_t index() const {
    int64_t index = 0, count = 0;
    check(cudnnBackendGetAttribute(d_.raw(), CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &count,
                                   &index),
          "index of an engine");
    return index;
  }
  std::vector<cudnnBackendNumericalNote_t> numerical_notes() const {
    return notes<cudnnBackendNumericalNote_t, CUDNN_NUMERICAL_NOTE_TYPE_COUNT>(
        CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE);
  }
  /// Making a plan of it takes a second, not a millisecond.
  bool compiled_at_run_time() const {
    const auto found = notes<cudnnBackendBehaviorNote_t, CUDNN_BEHAVIOR_NOTE_TYPE_COUNT>(
        CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE);
    return std::find(found.begin(), found.end(), CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION) != found.end();
  }

 private:
  template <class T, int kMost>
  std::vector<T> notes(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type) const {
    std::vector<T> all(kMost);
    int64_t count = 0;
    check(cudnnBackendGetAttribute(d_.raw(), name, type, kMost, &count, all.data()), "notes of an engine");
    all.resize(static_cast<size_t>(count));
    return all;
  }
  Descriptor d_;
};

/// "engine 45: 2=1 7=3": engine and settings. Tells the configurations of one problem apart, and means the
/// same in every process that runs this version of cuDNN.
inline std::string configuration_name(const Descriptor& configuration) {
  std::vector<std::pair<int, int64_t>> settings;
  for (const Descriptor& knob :
       descriptors(configuration, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR,
                   CUDNN_KNOB_TYPE_COUNTS, "settings of an engine")) {
    cudnnBackendKnobType_t type{};
    int64_t value = 0, count = 0;
    check(cudnnBackendGetAttribute(knob.raw(), CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1,
                                   &count, &type),
          "a setting");
    check(cudnnBackendGetAttribute(knob.raw(), CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &count,
                                   &value),
          "a setting");
    settings.emplace_back(static_cast<int>(type), value);
  }
  std::sort(settings.begin(), settings.end());
  std::string name = "engine " + std::to_string(Engine(configuration).index()) + ":";
  for (const auto& [type, value] : settings) name += ' ' + std::to_string(type) + '=' + std::to_string(value);
  return name;
}

}  // namespace gm::cuda::cudnn_graph
