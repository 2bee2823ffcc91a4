// The oracle for whole networks: a graph in double precision by the reference kernels, node by node, without
// planner or shared memory. Slow; for small batches.
#pragma once
#include <memory>
#include <vector>

#include "engine/graph.h"

namespace gm {

/// The form in which the reference kernels take a tensor: floats in double precision.
inline TensorSpec in_double(TensorSpec spec) {
  if (spec.dtype == DType::f32 || spec.dtype == DType::bf16) spec.dtype = DType::f64;
  return spec;
}

class ReferenceRun {
 public:
  /// Starts from the f32 values of `weights`. Throws gm::Error when this program holds no reference kernels
  /// (install_reference_kernels).
  ReferenceRun(const Graph& graph, const Weights& weights);

  /// An input of the graph.
  void set(ValueId id, const std::vector<float>& values);
  void set(ValueId id, const std::vector<int32_t>& labels);
  /// seed and step: as in Session, for dropout and stochastic depth.
  void forward(uint64_t seed, uint64_t step);
  /// After forward(): gradients of `loss` with respect to activations and trainable parameters.
  void backward(ValueId loss);

  /// After forward().
  std::vector<float> value(ValueId id) const;
  /// Between forward() and backward(): a tensor that a node of the graph saved for its backward pass.
  View saved(size_t node, size_t index) const { return operands(node).saved.at(index); }
  /// Parameters of the table: running statistics are those after forward().
  std::vector<float> parameter(int index) const;
  /// After backward(); empty when nothing flows there.
  std::vector<float> gradient(int parameter) const;

 private:
  struct Operands {
    std::vector<View> in, out, saved, state;
  };
  View operand(ValueId id) const;
  Operands operands(size_t node) const;
  Context context() const;

  Graph graph_;
  std::unique_ptr<Device> device_;
  std::vector<Buffer> values_;              // per value; empty for parameters
  std::vector<Buffer> parameters_;          // per entry of the table
  std::vector<std::vector<Buffer>> saved_;  // per node
  std::vector<Buffer> gradients_;           // per value; empty where nothing has flowed yet
  Buffer step_;
};

}  // namespace gm
