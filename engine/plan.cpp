#include "engine/plan.h"

#include <algorithm>
#include <set>

namespace gm {

namespace {

constexpr int kForever = 1 << 30;

// Which values get a gradient: those that lead from a trainable parameter (or an input that asks) to the
// loss.
std::vector<char> gradient_flow(const Graph& graph, ValueId loss) {
  const auto& values = graph.values();
  std::vector<char> from(values.size(), 0), to(values.size(), 0);
  for (size_t i = 0; i < values.size(); ++i) {
    const Value& v = values[i];
    if (v.kind == Value::parameter)
      from[i] = graph.table()[v.param].trainable && !graph.table()[v.param].frozen;
    if (v.kind == Value::input) from[i] = v.wants_gradient;
  }
  for (const Node& n : graph.nodes())
    for (int d : n.op->differentiable)
      if (d < static_cast<int>(n.in.size()) && n.in[d] != kAbsent && from[n.in[d]])
        for (ValueId o : n.out) from[o] = 1;
  to[loss] = 1;
  for (auto n = graph.nodes().rbegin(); n != graph.nodes().rend(); ++n) {
    bool reached = false;
    for (ValueId o : n->out) reached |= to[o];
    if (reached)
      for (int d : n->op->differentiable)
        if (d < static_cast<int>(n->in.size()) && n->in[d] != kAbsent) to[n->in[d]] = 1;
  }
  for (size_t i = 0; i < from.size(); ++i) from[i] = from[i] && to[i];
  return from;
}

// The nodes with a backward step, last first: those that pass a gradient from the loss on to where one flows.
std::vector<int> backward_order(const Graph& graph, const std::vector<char>& flows, ValueId loss) {
  std::vector<int> order;
  std::vector<char> started(graph.values().size(), 0);
  started[loss] = 1;
  for (int i = static_cast<int>(graph.nodes().size()) - 1; i >= 0; --i) {
    const Node& n = graph.nodes()[i];
    if (std::none_of(n.out.begin(), n.out.end(), [&](ValueId o) { return started[o]; })) continue;
    bool wanted = false;
    for (int d : n.op->differentiable)
      if (d < static_cast<int>(n.in.size()) && n.in[d] != kAbsent && flows[n.in[d]])
        wanted = true, started[n.in[d]] = 1;
    if (wanted) order.push_back(i);
  }
  return order;
}

// Values that a node outside their own segment reads: all that is kept of a segment that will be repeated.
std::vector<char> segment_outputs(const Graph& graph) {
  std::vector<char> outputs(graph.values().size(), 0);
  for (const Node& n : graph.nodes())
    for (ValueId id : n.in)
      if (id != kAbsent && graph.value(id).producer >= 0)
        outputs[id] |= graph.nodes()[graph.value(id).producer].segment != n.segment;
  return outputs;
}

class Planner {
 public:
  // repeat: segments whose forward steps are repeated.
  Planner(const Graph& graph, const PlanOptions& options, std::set<int> repeat)
      : graph_(graph), options_(options), repeat_(std::move(repeat)) {}

  Plan run() {
    const auto& values = graph_.values();
    plan_.value_slot.assign(values.size(), -1);
    plan_.gradient_slot.assign(values.size(), -1);
    saved_slot_.resize(graph_.nodes().size());
    for (size_t i = 0; i < values.size(); ++i)
      if (values[i].kind == Value::input) {
        plan_.value_slot[i] = new_slot(values[i].spec, 0);
        plan_.slots[plan_.value_slot[i]].last = kForever;
      }
    if (options_.training) {
      flows_ = gradient_flow(graph_, options_.loss);
      GM_CHECK(flows_[options_.loss], "the loss does not depend on any trainable parameter");
      order_ = backward_order(graph_, flows_, options_.loss);
    }
    has_backward_.assign(graph_.nodes().size(), 0);
    for (int i : order_) has_backward_[i] = 1;
    for (size_t i = 0; i < graph_.nodes().size(); ++i) {
      const bool save = has_backward_[i] && !repeat_.count(graph_.nodes()[i].segment);
      forward(static_cast<int>(i), plan_.value_slot, save, false);
    }
    plan_.backward_begin = plan_.steps.size();
    if (options_.training) backward();
    for (ValueId id : options_.keep)
      if (plan_.value_slot[id] >= 0) touch(plan_.value_slot[id], kForever);
    for (ValueId id : options_.keep_gradient) {
      GM_CHECK(plan_.gradient_slot[id] >= 0, "'" + values[id].name + "' has no gradient to keep");
      touch(plan_.gradient_slot[id], kForever);
    }
    place_slots(plan_, graph_);
    return std::move(plan_);
  }

 private:
  int new_slot(const TensorSpec& spec, int step) {
    plan_.slots.push_back({.spec = spec, .first = step, .last = step});
    return static_cast<int>(plan_.slots.size()) - 1;
  }
  void touch(int slot, int step) {
    if (slot >= 0) plan_.slots[slot].last = std::max(plan_.slots[slot].last, step);
  }
  size_t scratch(const Node& n, Pass pass) const {
    return n.op->workspace ? n.op->workspace(options_.backend, pass, n.attrs, graph_.input_specs(n)) : 0;
  }

  // One forward step, which reads and writes the slots of `slots`. save: keep what only backward needs.
  void forward(int node, std::vector<int>& slots, bool save, bool again) {
    const Node& n = graph_.nodes()[node];
    const int at = static_cast<int>(plan_.steps.size());
    Step s{.node = node, .pass = Pass::forward, .again = again, .workspace = scratch(n, Pass::forward)};
    for (ValueId id : n.in) {
      s.in.push_back(id == kAbsent ? -1 : slots[id]);
      touch(s.in.back(), at);
    }
    for (ValueId o : n.out) s.out.push_back(slots[o] = new_slot(graph_.spec(o), at));
    if (save && n.op->saved)
      for (const TensorSpec& spec : n.op->saved(n.attrs, graph_.input_specs(n)))
        s.saved.push_back(new_slot(spec, at));
    saved_slot_[node] = s.saved;
    plan_.steps.push_back(std::move(s));
  }

  void backward() {
    // Where backward starts from: written before the first step, by the session or its user.
    Slot seed{.spec = graph_.spec(options_.loss), .first = 0, .last = kForever, .outside = true};
    plan_.gradient_slot[options_.loss] = static_cast<int>(plan_.slots.size());
    plan_.slots.push_back(seed);
    std::vector<char> started(graph_.values().size(), 0);
    started[options_.loss] = 1;
    if (options_.accumulate)
      for (size_t i = 0; i < started.size(); ++i)
        started[i] |= graph_.value(static_cast<ValueId>(i)).kind == Value::parameter;
    std::vector<int> slots = plan_.value_slot;  // where each value lies now
    for (int i : order_) {
      const Node& n = graph_.nodes()[i];
      if (repeat_.erase(n.segment)) forward_again(n.segment, slots);
      const int at = static_cast<int>(plan_.steps.size());
      Step s{.node = i,
             .pass = Pass::backward,
             .in = std::vector<int>(n.in.size(), -1),
             .out = std::vector<int>(n.out.size(), -1),
             .saved = saved_slot_[i],
             .din = std::vector<int>(n.in.size(), -1),
             .mode = std::vector<GradMode>(n.in.size(), GradMode::none),
             .workspace = scratch(n, Pass::backward)};
      const BackwardReads reads = reads_of(n);
      for (int k : reads.in) s.in[k] = slots[n.in[k]];
      for (int k : reads.out) s.out[k] = slots[n.out[k]];
      for (ValueId o : n.out) s.dout.push_back(started[o] ? plan_.gradient_slot[o] : -1);
      for (int d : n.op->differentiable) {
        if (d >= static_cast<int>(n.in.size()) || n.in[d] == kAbsent || !flows_[n.in[d]]) continue;
        const ValueId id = n.in[d];
        s.mode[d] = started[id] ? GradMode::accumulate : GradMode::overwrite;
        started[id] = 1;
        if (graph_.value(id).kind != Value::parameter) {
          if (plan_.gradient_slot[id] < 0) plan_.gradient_slot[id] = new_slot(graph_.spec(id), at);
          s.din[d] = plan_.gradient_slot[id];
          if (graph_.value(id).kind == Value::input) touch(s.din[d], kForever);
        }
      }
      for (const auto* list : {&s.in, &s.out, &s.saved, &s.dout, &s.din})
        for (int slot : *list) touch(slot, at);
      plan_.steps.push_back(std::move(s));
    }
  }

  // What backward reads, absent inputs left out.
  static BackwardReads reads_of(const Node& n) {
    BackwardReads reads = n.op->backward_reads ? n.op->backward_reads(n.attrs) : BackwardReads{};
    std::erase_if(reads.in, [&](int k) { return k >= static_cast<int>(n.in.size()) || n.in[k] == kAbsent; });
    return reads;
  }

  // Repeats those forward steps of a segment whose results its backward steps need and nobody kept.
  void forward_again(int segment, std::vector<int>& slots) {
    std::vector<char> needed(graph_.values().size(), 0);
    std::vector<int> nodes;  // of the segment, last first
    for (int i = static_cast<int>(graph_.nodes().size()) - 1; i >= 0; --i) {
      const Node& n = graph_.nodes()[i];
      if (n.segment != segment) continue;
      nodes.push_back(i);
      if (!has_backward_[i]) continue;
      const BackwardReads reads = reads_of(n);
      for (int k : reads.in) needed[n.in[k]] = 1;
      for (int k : reads.out) needed[n.out[k]] = 1;
    }
    const std::vector<char> kept = segment_outputs(graph_);
    std::vector<int> steps;
    for (int i : nodes) {
      const Node& n = graph_.nodes()[i];
      bool repeat = has_backward_[i] && n.op->saved && !n.op->saved(n.attrs, graph_.input_specs(n)).empty();
      for (ValueId o : n.out) repeat |= needed[o] && !kept[o];
      if (!repeat) continue;
      steps.push_back(i);
      for (ValueId id : n.in)
        if (id != kAbsent) needed[id] = 1;
    }
    for (auto i = steps.rbegin(); i != steps.rend(); ++i) forward(*i, slots, has_backward_[*i], true);
  }

  const Graph& graph_;
  const PlanOptions& options_;
  std::set<int> repeat_;
  std::vector<char> flows_;                   // per value: gets a gradient
  std::vector<int> order_;                    // nodes with a backward step, last first
  std::vector<char> has_backward_;            // per node
  std::vector<std::vector<int>> saved_slot_;  // per node: where its saved tensors lie now
  Plan plan_;
};

}  // namespace

Plan make_plan(const Graph& graph, const PlanOptions& options) {
  std::set<int> all;
  if (options.training && options.recompute)
    for (const Node& n : graph.nodes()) all.insert(n.segment);
  all.erase(-1);
  Plan best = Planner(graph, options, all).run();
  // What the last segments keep dies first, so the peak lies elsewhere: find how many of them need not be
  // repeated before the arena grows.
  const std::vector<int> segments(all.begin(), all.end());
  const size_t arena = best.arena_bytes;
  for (size_t fits = 0, grows = segments.size() + 1; fits + 1 < grows;) {
    const size_t kept = (fits + grows) / 2;
    Plan plan = Planner(graph, options, {segments.begin(), segments.end() - kept}).run();
    if (plan.arena_bytes <= arena) {
      fits = kept;
      best = std::move(plan);
    } else {
      grows = kept;
    }
  }
  return best;
}

}  // namespace gm
