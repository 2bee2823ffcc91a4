#include "kernels/depthwise_bn_se/se_layers.h"

#include "kernels/common/op_checks.h"
#include "kernels/global_pool/global_pool.h"

namespace gm {

void check_se_layers(const char* op, std::span<const TensorSpec> in, size_t first, int64_t channels) {
  const int64_t squeeze = in[first].shape[0];
  const Shape shapes[] = {{squeeze, channels}, {squeeze}, {channels, squeeze}, {channels}};
  const char* names[] = {"w_squeeze", "b_squeeze", "w_excite", "b_excite"};
  for (size_t i = 0; i < 4; ++i) {
    const TensorSpec& s = in[first + i];
    if (i % 2 && s.shape.rank == 0) continue;
    check_f32(op, names[i], s, shapes[i]);
  }
}

size_t se_linear_workspace(Pass pass, std::span<const TensorSpec> in, size_t first, int64_t images) {
  size_t most = 0;
  for (size_t k : {first, first + 2}) {
    const Specs layer{{{images, in[k].shape[1]}, DType::f32}, in[k], in[k + 1]};
    most = std::max(most, find_op("linear").workspace(Backend::cpu, pass, {}, layer));
  }
  return most;
}

void add_se_steps(std::vector<CompositionStep>& steps, Act act, size_t first) {
  auto input = [&](size_t k) { return "in" + std::to_string(first + k); };
  auto add = [&](const char* op, const Attrs& a, std::vector<std::string> from, const std::string& to) {
    steps.push_back({.op = op, .attrs = a, .in = std::move(from), .out = {to}});
  };
  add("global_pool", {{"kind", PoolKind::average}}, {"a"}, "pooled");
  add("linear", {}, {"pooled", input(0), input(1)}, "squeezed");
  add("activation", act_attrs(act), {"squeezed"}, "acted");
  add("linear", {}, {"acted", input(2), input(3)}, "excited");
  add("activation", act_attrs(Act::sigmoid), {"excited"}, "gate");
  add("channel_scale", {}, {"a", "gate"}, "out0");
}

}  // namespace gm
