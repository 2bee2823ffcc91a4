#include "layers/rewriting.h"

#include <string>
#include <utility>

#include "kernels/global_pool/global_pool.h"

namespace gm {

namespace {

std::vector<std::vector<int>> consumers(const Graph& g) {
  std::vector<std::vector<int>> uses(g.values().size());
  for (size_t i = 0; i < g.nodes().size(); ++i)
    for (ValueId id : g.nodes()[i].in)
      if (id != kAbsent) uses[id].push_back(static_cast<int>(i));
  return uses;
}

}  // namespace

std::vector<int> Chain::nodes() const {
  std::vector<int> list;
  for (int n : {conv, norm, act, pool, drop, add})
    if (n >= 0) list.push_back(n);
  return list;
}

bool pointwise_conv2d(const Graph& g, int node) {
  if (node < 0 || g.nodes()[node].op->name != "conv2d") return false;
  const Attrs& a = g.nodes()[node].attrs;
  for (const char* pad : {"pad_top", "pad_left", "pad_bottom", "pad_right"})
    if (a.geti(pad, 0)) return false;
  return a.geti("kernel") == 1 && a.geti("stride", 1) == 1;
}

Matcher::Matcher(const Graph& g, const Fusions& fusions) : g_(g), fusions_(fusions), uses_(consumers(g)) {}

int Matcher::only_consumer(int node) const {
  const auto& u = readers(node);
  return u.size() == 1 ? u[0] : -1;
}

Chain Matcher::from(int node) const {
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

int Matcher::pool_of_scale(int node) const {
  if (!fusions_.attention || !is(node, "channel_scale")) return -1;
  for (int u : uses_[g_.nodes()[node].out[0]])
    if (is(u, "spatial_pool")) return u;
  return -1;
}

void Matcher::extend(Chain& c, int norm) const {
  c.norm = norm;
  const int act = only_consumer(norm);
  if (fusions_.activation && is(act, "activation")) c.act = act;
  // Squeeze-excitation: an average pool over a result that others read too rides along with the apply pass.
  const auto& readers = uses_[g_.nodes()[c.last()].out[0]];
  for (int u : readers)
    if (fusions_.pool && readers.size() > 1 && is(u, "global_pool") &&
        pool_kind(g_.nodes()[u].attrs) == PoolKind::average)
      c.pool = u;
  if (fusions_.residual && !is(c.conv, "depthwise_conv2d")) add_residual(c);
}

// The residual must exist before the chain begins: its first node is where the fused one will stand.
void Matcher::add_residual(Chain& c) const {
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

Rebuild::Rebuild(const NetworkGraph& from, ParameterTable& table) : from_(from), to_{Graph(table)} {
  map_.assign(from.graph.values().size(), kAbsent);
}

ValueId Rebuild::operand(ValueId id) {
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

std::vector<ValueId> Rebuild::operands(const std::vector<ValueId>& ids) {
  std::vector<ValueId> v;
  append(v, ids);
  return v;
}

void Rebuild::append(std::vector<ValueId>& in, const std::vector<ValueId>& ids) {
  for (ValueId id : ids) in.push_back(operand(id));
}

void Rebuild::copy(const Node& n) {
  const auto in = operands(n.in), state = operands(n.state);
  const auto out = to_.graph.add(std::string(n.op->name), n.attrs, in, n.name, state);
  for (size_t i = 0; i < out.size(); ++i) bind(n.out[i], out[i]);
}

void Rebuild::fuse_scale_pool(const Node& scale, const Node& pool) {
  const auto out = to_.graph.add("channel_scale_pool", pool.attrs, operands(scale.in), scale.name);
  bind(scale.out[0], out[0]);
  bind(pool.out[0], out[1]);
}

NetworkGraph Rebuild::finish() {
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

}  // namespace gm
