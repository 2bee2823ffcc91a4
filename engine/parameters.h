// Parameters of a network: names, shapes, initialisers and their place in the flat buffers.
#pragma once
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/buffer.h"
#include "kernels/common/view.h"

namespace gm {

/// How a parameter starts. Fans are those of Keras: receptive field x input (output) channels.
struct Initializer {
  enum Kind { zeros, ones, truncated_normal, uniform } kind = zeros;
  double fan = 1;    // fan_out or fan_in, already chosen by the layer
  double scale = 1;  // variance scaling: variance = scale / fan

  /// Keras VarianceScaling(2, fan_out, truncated_normal): convolutions of EfficientNet.
  static Initializer conv(double fan_out) { return {truncated_normal, fan_out, 2.0}; }
  /// Keras VarianceScaling(1/3, fan_out, uniform): dense layers of EfficientNet.
  static Initializer dense(double fan_out) { return {uniform, fan_out, 1.0 / 3.0}; }
};

struct Parameter {
  std::string name;  // "block2a_expand_conv/kernel": Keras layer and weight names
  Shape shape;       // convolutions OHWI, depthwise HWC, dense (out, in)
  Initializer init;
  bool trainable = true;  // false: running statistics, updated by their op, no gradient
  bool decay = false;     // weight decay applies (kernels of convolutions and dense layers)
  bool frozen = false;    // trainable in principle, excluded from training by the user
  int64_t offset = 0;     // elements into the flat buffer of its kind
};

/// The list of parameters and the layout of two flat f32 buffers: trainable parameters, and states. Every
/// parameter starts at a multiple of 64 elements so that vector loads stay aligned in f32 and bf16.
class ParameterTable {
 public:
  /// Registers a parameter, or returns the existing one of that name after checking its shape: graphs of
  /// other batch sizes share one table.
  int add(const std::string& name, const Shape& shape, const Initializer& init, bool trainable, bool decay);
  int find(const std::string& name) const;  // -1 when absent
  const Parameter& operator[](int i) const { return items_[i]; }
  Parameter& operator[](int i) { return items_[i]; }
  int size() const { return static_cast<int>(items_.size()); }
  auto begin() const { return items_.begin(); }
  auto end() const { return items_.end(); }

  /// Keras's "trainable" and "total" counts (total includes running statistics).
  int64_t trainable_count() const;
  int64_t frozen_count() const;
  int64_t total_count() const;
  /// Elements of the flat buffers, alignment gaps included.
  int64_t trainable_elements() const { return trainable_elements_; }
  int64_t state_elements() const { return state_elements_; }

 private:
  std::vector<Parameter> items_;
  std::unordered_map<std::string, int> index_;
  int64_t trainable_elements_ = 0, state_elements_ = 0;
};

/// Bytes of the values of a table's parameters, running statistics and, with `bf16_copies`, bf16 copies.
size_t weight_bytes(const ParameterTable& table, bool bf16_copies);

/// Parameter values on a device: f32 masters, optional bf16 copies, gradients, running statistics.
class Weights {
 public:
  /// bf16_copies: keep bf16 copies of the trainable parameters. training: allocate gradients.
  Weights(Device& device, const ParameterTable& table, bool bf16_copies, bool training);

  /// Draws initial values: the same for the same seed on every device.
  void initialize(const ParameterTable& table, uint64_t seed);
  /// Rewrites the bf16 copies from the f32 masters.
  void refresh_bf16();

  std::vector<float> download(const Parameter& p) const;
  void upload(const Parameter& p, const std::vector<float>& values);

  View value(const Parameter& p, DType dtype) const;
  View gradient(const Parameter& p) const;

  Buffer& master() { return master_; }
  Buffer& bf16_copies() { return bf16_; }
  Buffer& gradients() { return gradients_; }
  Buffer& state() { return state_; }
  size_t bytes() const { return master_.bytes() + bf16_.bytes() + gradients_.bytes() + state_.bytes(); }

 private:
  Device& device_;
  Buffer master_, bf16_, gradients_, state_;
};

}  // namespace gm
