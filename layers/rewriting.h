// What the graph rewrites share: finding chains of nodes, and copying a graph while some nodes are replaced.
// Private to layers/.
#pragma once
#include <vector>

#include "kernels/activation/activation.h"
#include "layers/rewrites.h"

namespace gm {

/// Convolution -> batch norm -> activation -> average pool, or -> stochastic depth -> residual add, found
/// from its first node. -1 where a part is missing.
struct Chain {
  int conv = -1, norm = -1, act = -1, pool = -1, drop = -1, add = -1;
  ValueId residual = kAbsent;  // the other operand of the add

  explicit operator bool() const { return norm >= 0; }
  int first() const { return conv >= 0 ? conv : norm; }
  int last() const { return add >= 0 ? add : act >= 0 ? act : norm; }
  std::vector<int> nodes() const;
};

/// True where a node is a dense convolution of single pixels.
bool pointwise_conv2d(const Graph& g, int node);

class Matcher {
 public:
  Matcher(const Graph& g, const Fusions& fusions);

  bool is(int node, const char* op) const { return node >= 0 && g_.nodes()[node].op->name == op; }
  /// Nodes that read the first output.
  const std::vector<int>& readers(int node) const { return uses_[g_.nodes()[node].out[0]]; }
  /// -1 when there is not exactly one.
  int only_consumer(int node) const;
  /// From a convolution without bias and epilogue and its batch norm on, or from a batch norm on, as far as
  /// nothing else reads between.
  Chain from(int node) const;
  /// The spatial_pool that reads the result of a channel_scale (CBAM), or -1.
  int pool_of_scale(int node) const;
  Act act_of(const Chain& c) const { return c.act >= 0 ? gm::act_of(g_.nodes()[c.act].attrs) : Act::none; }

 private:
  void extend(Chain& c, int norm) const;
  void add_residual(Chain& c) const;

  const Graph& g_;
  const Fusions fusions_;
  std::vector<std::vector<int>> uses_;  // consumers of every value, as node indices
};

/// Copies a graph node by node while some nodes are replaced.
class Rebuild {
 public:
  Rebuild(const NetworkGraph& from, ParameterTable& table);

  Graph& graph() { return to_.graph; }
  void bind(ValueId old_id, ValueId new_id) { map_[old_id] = new_id; }
  /// Operands are taken over when first needed, so unused parameters disappear.
  ValueId operand(ValueId id);
  std::vector<ValueId> operands(const std::vector<ValueId>& ids);
  void append(std::vector<ValueId>& in, const std::vector<ValueId>& ids);
  void copy(const Node& n);
  /// channel_scale and the spatial_pool behind it as one pass.
  void fuse_scale_pool(const Node& scale, const Node& pool);
  NetworkGraph finish();

 private:
  const NetworkGraph& from_;
  NetworkGraph to_;
  std::vector<ValueId> map_;
};

}  // namespace gm
