// A network for one batch size as a list of ops in execution order. Static: shapes are known when it is
// built.
#pragma once
#include <string>
#include <vector>

#include "engine/parameters.h"
#include "kernels/common/op.h"

namespace gm {

using ValueId = int;
constexpr ValueId kAbsent = -1;  // an optional input that is not given

struct Value {
  enum Kind { activation, input, parameter } kind = activation;
  TensorSpec spec;
  std::string name;
  int param = -1;               // index into the ParameterTable when kind == parameter
  int producer = -1;            // node that writes it; -1 for inputs and parameters
  bool wants_gradient = false;  // inputs only: gradient asked for by the user (saliency)
};

struct Node {
  const OpDef* op;
  Attrs attrs;
  std::string name;  // layer name, for errors, tables and Grad-CAM
  std::vector<ValueId> in, out, state;
  int segment = -1;  // see Graph::begin_segment; -1: none
};

class Graph {
 public:
  explicit Graph(ParameterTable& table) : table_(&table) {}

  ValueId input(const std::string& name, const TensorSpec& spec);
  /// A parameter value in `dtype` (its master is always f32).
  ValueId parameter(const std::string& name, const Shape& shape, const Initializer& init,
                    DType dtype = DType::f32, bool trainable = true, bool decay = false);
  /// Appends a node; outputs get their shapes from the op's shape rule. Errors name `name` and the shapes.
  std::vector<ValueId> add(const std::string& op, const Attrs& attrs, const std::vector<ValueId>& in,
                           const std::string& name, const std::vector<ValueId>& state = {});
  ValueId add1(const std::string& op, const Attrs& attrs, const std::vector<ValueId>& in,
               const std::string& name, const std::vector<ValueId>& state = {}) {
    return add(op, attrs, in, name, state).at(0);
  }

  /// Nodes added from now on belong to this segment, a block of the network. Between its forward and backward
  /// the planner may drop what lies inside one and compute it again (PlanOptions::recompute).
  void begin_segment(int segment) { segment_ = segment; }

  const std::vector<Value>& values() const { return values_; }
  const std::vector<Node>& nodes() const { return nodes_; }
  std::vector<Value>& values() { return values_; }
  std::vector<Node>& nodes() { return nodes_; }
  const Value& value(ValueId id) const { return values_[id]; }
  const TensorSpec& spec(ValueId id) const { return values_[id].spec; }
  ParameterTable& table() const { return *table_; }
  /// Input specs of a node; absent inputs have an empty spec.
  Specs input_specs(const Node& node) const;
  /// The value written by the node of that name; throws gm::Error listing all nodes when there is none.
  ValueId output_of(const std::string& node_name) const;

 private:
  ParameterTable* table_;
  std::vector<Value> values_;
  std::vector<Node> nodes_;
  int segment_ = -1;
};

}  // namespace gm
