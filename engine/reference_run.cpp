#include "engine/reference_run.h"

namespace gm {

namespace {

View whole(const Buffer& buffer, const TensorSpec& spec) { return buffer.view(0, in_double(spec)); }
std::vector<float> as_floats(const Buffer& buffer) {
  const auto values = buffer.download<double>();
  return {values.begin(), values.end()};
}
Specs saved_specs(const Graph& g, const Node& n) {
  return n.op->saved ? n.op->saved(n.attrs, g.input_specs(n)) : Specs{};
}

}  // namespace

ReferenceRun::ReferenceRun(const Graph& graph, const Weights& weights)
    : graph_(graph), device_(open_device("ref")), step_(*device_, sizeof(StepState)) {
  for (const Parameter& p : graph_.table()) {
    const auto values = weights.download(p);
    parameters_.emplace_back(*device_, values.size() * sizeof(double));
    parameters_.back().upload(std::vector<double>(values.begin(), values.end()));
  }
  for (const Value& v : graph_.values())
    values_.push_back(v.kind == Value::parameter ? Buffer() : Buffer(*device_, in_double(v.spec).bytes()));
  for (const Node& n : graph_.nodes()) {
    saved_.emplace_back();
    for (const TensorSpec& spec : saved_specs(graph_, n))
      saved_.back().emplace_back(*device_, in_double(spec).bytes());
  }
}

void ReferenceRun::set(ValueId id, const std::vector<float>& values) {
  values_[id].upload(std::vector<double>(values.begin(), values.end()));
}
void ReferenceRun::set(ValueId id, const std::vector<int32_t>& labels) { values_[id].upload(labels); }

View ReferenceRun::operand(ValueId id) const {
  if (id == kAbsent) return {};
  const Value& v = graph_.value(id);
  return whole(v.kind == Value::parameter ? parameters_[v.param] : values_[id], v.spec);
}

ReferenceRun::Operands ReferenceRun::operands(size_t node) const {
  const Node& n = graph_.nodes()[node];
  Operands o;
  for (ValueId id : n.in) o.in.push_back(operand(id));
  for (ValueId id : n.out) o.out.push_back(operand(id));
  for (ValueId id : n.state) o.state.push_back(operand(id));
  const Specs saved = saved_specs(graph_, n);
  for (size_t k = 0; k < saved.size(); ++k) o.saved.push_back(whole(saved_[node][k], saved[k]));
  return o;
}

Context ReferenceRun::context() const {
  Context ctx = device_->context();
  ctx.step = static_cast<const StepState*>(step_.data());
  return ctx;
}

void ReferenceRun::forward(uint64_t seed, uint64_t step) {
  step_.upload(std::vector<StepState>{{seed, step}});
  const Context ctx = context();
  for (size_t i = 0; i < graph_.nodes().size(); ++i) {
    const Node& n = graph_.nodes()[i];
    const Operands o = operands(i);
    kernel_table(Backend::ref)[op_index(*n.op)].forward(
        OpCall{n.attrs, o.in, o.out, o.saved, o.state, {}, {}, {}, ctx});
  }
}

void ReferenceRun::backward(ValueId loss) {
  const Context ctx = context();
  gradients_.clear();
  gradients_.resize(graph_.values().size());
  auto gradient = [&](ValueId id) {
    if (!gradients_[id].bytes()) gradients_[id] = Buffer(*device_, in_double(graph_.spec(id)).bytes());
    return whole(gradients_[id], graph_.spec(id));
  };
  gradient(loss);
  gradients_[loss].upload(std::vector<double>(graph_.spec(loss).shape.numel(), 1.0));
  for (size_t i = graph_.nodes().size(); i-- > 0;) {
    const Node& n = graph_.nodes()[i];
    std::vector<View> dout;
    bool reached = false, wanted = false;
    for (ValueId id : n.out) {
      dout.push_back(gradients_[id].bytes() ? gradient(id) : View{});
      reached |= static_cast<bool>(dout.back());
    }
    if (!reached) continue;
    std::vector<GradView> din(n.in.size());
    for (int d : n.op->differentiable) {
      if (d >= static_cast<int>(n.in.size()) || n.in[d] == kAbsent) continue;
      const Value& v = graph_.value(n.in[d]);
      if (v.kind == Value::input || (v.kind == Value::parameter && !graph_.table()[v.param].trainable))
        continue;
      const GradMode mode = gradients_[n.in[d]].bytes() ? GradMode::accumulate : GradMode::overwrite;
      din[d] = {gradient(n.in[d]), mode};
      wanted = true;
    }
    if (!wanted) continue;
    const Operands o = operands(i);
    kernel_table(Backend::ref)[op_index(*n.op)].backward(
        OpCall{n.attrs, o.in, o.out, o.saved, o.state, dout, din, {}, ctx});
  }
}

std::vector<float> ReferenceRun::value(ValueId id) const { return as_floats(values_[id]); }
std::vector<float> ReferenceRun::parameter(int index) const { return as_floats(parameters_[index]); }
std::vector<float> ReferenceRun::gradient(int parameter) const {
  for (size_t i = 0; i < gradients_.size(); ++i)
    if (graph_.values()[i].param == parameter && gradients_[i].bytes()) return as_floats(gradients_[i]);
  return {};
}

}  // namespace gm
