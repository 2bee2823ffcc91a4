#include "engine/session.h"

#include <algorithm>

namespace gm {

Session::Session(Device& device, const Graph& graph, Weights& weights, PlanOptions options, uint64_t seed,
                 const Session* lender)
    : device_(device), graph_(graph), weights_(weights), options_(std::move(options)), seed_(seed) {
  options_.backend = device.backend();
  plan_ = make_plan(graph_, options_);
  if (lender && lender->arena_->bytes() >= plan_.arena_bytes)
    arena_ = lender->arena_;
  else
    own_arena_ = Buffer(device, plan_.arena_bytes);
  if (lender && lender->workspace_->bytes() >= plan_.workspace_bytes)
    workspace_ = lender->workspace_;
  else
    own_workspace_ = Buffer(device, plan_.workspace_bytes);
  if (std::any_of(plan_.steps.begin(), plan_.steps.end(), [](const Step& s) { return s.again; }))
    state_copy_ = Buffer(device, weights.state().bytes());
  step_ = Buffer(device, sizeof(StepState));
  if (options_.training) {
    const std::vector<float> ones(graph_.spec(options_.loss).shape.numel(), 1.f);
    loss_gradient_ = Buffer(device, ones.size() * sizeof(float));
    loss_gradient_.upload(ones);
  }
  const auto table = kernel_table(device.backend());
  for (const Step& s : plan_.steps) {
    const Node& n = graph_.nodes()[s.node];
    const KernelPair kernels = table[op_index(*n.op)];
    Prepared p{s.pass == Pass::forward ? kernels.forward : kernels.backward, &n, {}, {}, {}, {}, {}, {}};
    GM_CHECK(p.kernel,
             "op '" + std::string(n.op->name) + "' has no kernel on " + backend_name(device.backend()));
    for (size_t i = 0; i < n.in.size(); ++i) p.in.push_back(operand(n.in[i], s.in[i]));
    for (int slot : s.out) p.out.push_back(slot_view(slot));
    for (int slot : s.saved) p.saved.push_back(slot_view(slot));
    if (p.saved.empty() && n.op->saved)  // inference: kernels see null views of the right shapes
      for (const auto& spec : n.op->saved(n.attrs, graph_.input_specs(n))) p.saved.push_back({nullptr, spec});
    for (ValueId id : n.state) {
      const Parameter& state = graph_.table()[graph_.value(id).param];
      p.state.push_back(s.again ? state_copy_.view(state.offset * sizeof(float), {state.shape, DType::f32})
                                : operand(id, -1));
    }
    for (int slot : s.dout) p.dout.push_back(slot_view(slot));
    if (s.pass == Pass::backward)
      for (size_t i = 0; i < n.in.size(); ++i) {
        GradView g;
        g.mode = s.mode[i];
        if (g.mode != GradMode::none)
          g.view = s.din[i] >= 0 ? slot_view(s.din[i])
                                 : weights_.gradient(graph_.table()[graph_.value(n.in[i]).param]);
        p.din.push_back(g);
      }
    prepared_.push_back(std::move(p));
  }
  set_step(0);
}

View Session::slot_view(int slot) const {
  if (slot < 0) return View{};
  const Slot& s = plan_.slots[slot];
  return s.outside ? loss_gradient_.view(0, s.spec) : arena_->view(s.offset, s.spec);
}

View Session::operand(ValueId id, int slot) const {
  if (id == kAbsent) return View{};
  const Value& v = graph_.value(id);
  if (v.kind == Value::parameter) return weights_.value(graph_.table()[v.param], v.spec.dtype);
  return slot >= 0 ? slot_view(slot) : View{nullptr, v.spec};
}

View Session::value(ValueId id) const { return operand(id, plan_.value_slot[id]); }
View Session::gradient(ValueId id) const { return slot_view(plan_.gradient_slot[id]); }

View Session::saved(int node, size_t index) const {
  for (size_t i = plan_.backward_begin; i < plan_.steps.size(); ++i)
    if (plan_.steps[i].node == node && plan_.steps[i].pass == Pass::backward)
      return prepared_[i].saved.at(index);
  fail("layer '" + graph_.nodes()[node].name + "' has no backward pass");
}

void Session::upload(ValueId id, const void* host) {
  const View v = value(id);
  device_.upload(v.data, host, v.spec.bytes());
}

std::vector<float> Session::download(ValueId id) const { return to_host(device_, value(id)); }

void Session::set_step(uint64_t step) {
  const StepState state{seed_, step};
  device_.upload(step_.data(), &state, sizeof state);
}

void Session::run(size_t begin, size_t end) {
  Context ctx = device_.context();
  ctx.step = step_source_ ? step_source_ : static_cast<const StepState*>(step_.data());
  const View scratch{workspace_->data(), {Shape{static_cast<int64_t>(workspace_->bytes())}, DType::u8}};
  for (size_t i = begin; i < end; ++i) {
    if (i == 0 && state_copy_.bytes())
      device_.copy(state_copy_.data(), weights_.state().data(), state_copy_.bytes());
    const Prepared& p = prepared_[i];
    try {
      p.kernel(OpCall{p.node->attrs, p.in, p.out, p.saved, p.state, p.dout, p.din, scratch, ctx});
    } catch (const Error& e) {
      fail("layer '" + p.node->name + "' (" + std::string(p.node->op->name) + "): " + e.what());
    }
  }
}

std::vector<float> to_host(Device& device, const View& view) {
  std::vector<float> values(view.numel());
  if (view.dtype() == DType::bf16) {
    std::vector<bf16> raw(values.size());
    device.download(raw.data(), view.data, view.spec.bytes());
    for (size_t i = 0; i < raw.size(); ++i) values[i] = to_float(raw[i]);
  } else {
    GM_CHECK(view.dtype() == DType::f32, "only float tensors can be read as floats");
    device.download(values.data(), view.data, view.spec.bytes());
  }
  return values;
}

}  // namespace gm
