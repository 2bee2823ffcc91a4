// What the graph rewrites share: finding chains of nodes, and copying a graph while some nodes are replaced.
// Private to layers/.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "layers/rewrites.h"

namespace gm {

// Consumers of every value, as node indices.
inline std::vector<std::vector<int>> consumers(const Graph& g) {
  std::vector<std::vector<int>> uses(g.values().size());
  for (size_t i = 0; i < g.nodes().size(); ++i)
    for (ValueId id : g.nodes()[i].in)
      if (id != kAbsent) uses[id].push_back(static_cast<int>(i));
  return uses;
}

// Convolution -> batch norm -> activation -> average pool, or -> stochastic depth -> residual add, found from
// its first node. -1 where a part is missing.
struct Chain {
  int conv = -1, norm = -1, act = -1, pool = -1, drop = -1, add = -1;
  ValueId residual = kAbsent;  // the other operand of the add

  explicit operator bool() const { return norm >= 0; }
  int first() const { return conv >= 0 ? conv : norm; }
  int last() const { return add >= 0 ? add : act >= 0 ? act : norm; }
  std::vector<int> nodes() const {
    std::vector<int> list;
    for (int n : {conv, norm, act, pool, drop, add})
      if (n >= 0) list.push_back(n);
    return list;
  }
};

class Matcher {
 public:
  Matcher(const Graph& g, const Fusions& fusions) : g_(g), fusions_(fusions), uses_(consumers(g)) {}

  bool is(int node, const char* op) const { return node >= 0 && g_.nodes()[node].op->name == op; }
  /// Nodes that read the first output.
  const std::vector<int>& readers(int node) const { return uses_[g_.nodes()[node].out[0]]; }
  int only_consumer(int node) const {
    const auto& u = readers(node);
    return u.size() == 1 ? u[0] : -1;
  }
  // From a convolution without bias and epilogue and its batch norm on, or from a batch norm on, as far as
  // nothing else reads between.
  Chain from(int node) const {
    Chain c;
    const Node& n = g_.nodes()[node];
    if (is(node, "batch_norm")) {
      extend(c, node);
    } else if (fusions_.batch_norm && (is(node, "conv2d") || is(node, "depthwise_conv2d"))) {
      const int norm = only_consumer(node);
      if (n.in[2] != kAbsent || n.attrs.get("act", 0) != 0 || !is(norm, "batch_norm")) return c;
      c.conv = node;
      extend(c, norm);
    }
    return c;
  }
  // The spatial_pool that reads the result of a channel_scale (CBAM), or -1.
  int pool_of_scale(int node) const {
    if (!fusions_.attention || !is(node, "channel_scale")) return -1;
    for (int u : uses_[g_.nodes()[node].out[0]])
      if (is(u, "spatial_pool")) return u;
    return -1;
  }
  int act_of(const Chain& c) const { return c.act >= 0 ? g_.nodes()[c.act].attrs.geti("act") : 0; }

 private:
  void extend(Chain& c, int norm) const {
    c.norm = norm;
    const int act = only_consumer(norm);
    if (fusions_.activation && is(act, "activation")) c.act = act;
    // Squeeze-excitation: an average pool over a result that others read too rides along with the apply pass.
    const auto& readers = uses_[g_.nodes()[c.last()].out[0]];
    for (int u : readers)
      if (fusions_.pool && readers.size() > 1 && is(u, "global_pool") &&
          g_.nodes()[u].attrs.geti("kind") == 0)
        c.pool = u;
    if (fusions_.residual && !is(c.conv, "depthwise_conv2d")) add_residual(c);
  }
  // The residual must exist before the chain begins: its first node is where the fused one will stand.
  void add_residual(Chain& c) const {
    int branch = c.last(), next = only_consumer(branch), drop = -1;
    if (is(next, "dropout") && g_.nodes()[next].attrs.geti("per_sample", 0)) {
      branch = drop = next;
      next = only_consumer(drop);
    }
    if (!is(next, "add")) return;
    const auto& in = g_.nodes()[next].in;
    const ValueId other = in[0] == g_.nodes()[branch].out[0] ? in[1] : in[0];
    if (g_.value(other).producer >= c.first()) return;
    c.drop = drop;
    c.add = next;
    c.residual = other;
  }
  const Graph& g_;
  const Fusions fusions_;
  std::vector<std::vector<int>> uses_;
};

// Copies a graph node by node while some nodes are replaced.
class Rebuild {
 public:
  Rebuild(const TrainableGraph& from, ParameterTable& table) : from_(from), to_{Graph(table)} {
    map_.assign(from.graph.values().size(), kAbsent);
  }
  Graph& graph() { return to_.graph; }
  void bind(ValueId old_id, ValueId new_id) { map_[old_id] = new_id; }

  // Operands are taken over when first needed, so unused parameters disappear.
  ValueId operand(ValueId id) {
    if (id == kAbsent) return kAbsent;
    if (map_[id] == kAbsent) {
      const Value& v = from_.graph.value(id);
      GM_CHECK(v.kind != Value::activation, "value used before it was rebuilt");
      if (v.kind == Value::input) {
        map_[id] = to_.graph.input(v.name, v.spec);
        to_.graph.values()[map_[id]].wants_gradient = v.wants_gradient;
      } else {
        const Parameter& p = from_.graph.table()[v.param];
        map_[id] = to_.graph.parameter(p.name, p.shape, p.init, v.spec.dtype, p.trainable, p.decay);
      }
    }
    return map_[id];
  }
  void append(std::vector<ValueId>& in, const std::vector<ValueId>& ids) {
    for (ValueId id : ids) in.push_back(operand(id));
  }
  std::vector<ValueId> operands(const std::vector<ValueId>& ids) {
    std::vector<ValueId> v;
    append(v, ids);
    return v;
  }
  void copy(const Node& n) {
    const auto in = operands(n.in), state = operands(n.state);
    const auto out = to_.graph.add(std::string(n.op->name), n.attrs, in, n.name, state);
    for (size_t i = 0; i < out.size(); ++i) bind(n.out[i], out[i]);
  }
  // channel_scale and the spatial_pool behind it as one pass.
  void fuse_scale_pool(const Node& scale, const Node& pool) {
    const auto out = to_.graph.add("channel_scale_pool", pool.attrs, operands(scale.in), scale.name);
    bind(scale.out[0], out[0]);
    bind(pool.out[0], out[1]);
  }
  TrainableGraph finish() {
    to_.pixels = operand(from_.pixels);
    to_.labels = operand(from_.labels);
    to_.class_weights = operand(from_.class_weights);
    to_.augment = from_.augment;
    auto mapped = [&](ValueId id) { return id == kAbsent ? kAbsent : map_[id]; };
    to_.loss = mapped(from_.loss);
    to_.correct = mapped(from_.correct);
    to_.logits = mapped(from_.logits);
    return std::move(to_);
  }

 private:
  const TrainableGraph& from_;
  TrainableGraph to_;
  std::vector<ValueId> map_;
};

}  // namespace gm
