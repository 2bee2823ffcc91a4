#include <algorithm>
#include <array>

#include "kernels/common/op_checks.h"
#include "kernels/conv2d/conv2d_attrs.h"
#include "kernels/depthwise_bn_se/se_layers.h"
#include "kernels/depthwise_conv2d/depthwise_gpu.h"
#include "kernels/depthwise_se/depthwise_se.h"
#include "kernels/global_pool/global_pool.h"

namespace gm {

DepthwiseSeWorkspace depthwise_se_workspace(Backend backend, const Attrs& attrs,
                                            std::span<const TensorSpec> in) {
  const DepthwiseShape d(attrs, in[0].shape);
  DepthwiseSeWorkspace w;
  auto take = [&](int64_t bytes) {
    const size_t here = aligned_bytes(w.bytes);
    w.bytes = here + static_cast<size_t>(bytes);
    return here;
  };
  if (backend != Backend::cpu) w.parts = depthwise_gpu_parts(d, in[0].dtype);
  const int64_t wide = 4 * d.images * d.channels;
  w.pooled = take(wide * w.parts);
  w.gate = take(wide);
  w.squeezed = take(4 * d.images * in[3].shape[0]);
  if (backend != Backend::cpu) {
    const TensorSpec a{d.output(), in[0].dtype};
    w.ops = take(static_cast<int64_t>(
        find_op("global_pool")
            .workspace(backend, Pass::forward, {{"kind", PoolKind::average}}, std::span(&a, 1))));
    return w;
  }
  const size_t conv = find_op("depthwise_conv2d").workspace(backend, Pass::forward, attrs, in.first(3));
  w.ops = take(static_cast<int64_t>(std::max(conv, se_linear_workspace(Pass::forward, in, 3, d.images))));
  return w;
}

DepthwiseSeWorkspace depthwise_se_workspace(Backend backend, const OpCall& call) {
  Specs in;
  for (const View& v : call.in) in.push_back(v ? v.spec : TensorSpec{});
  return depthwise_se_workspace(backend, call.attrs, in);
}

namespace {
Specs infer(const Attrs& a, std::span<const TensorSpec> in) {
  const TensorSpec y = check_depthwise("depthwise_se", a, in[0], in[1]);
  const int64_t channels = y.shape[3];
  check_optional_f32("depthwise_se", "bias", in, 2, {channels});
  check_se_layers("depthwise_se", in, 3, channels);
  if (gate_apart(a)) return {y, {{y.shape[0], channels}, DType::f32}};
  return {y};
}

Cost cost(Pass, const Attrs& a, std::span<const TensorSpec> in) {
  const DepthwiseShape d(a, in[0].shape);
  const double x = double(in[0].bytes()), y = x * double(d.out_image()) / double(d.in_image());
  return {x + (gate_apart(a) ? 1 : 3) * y + 2 * double(in[3].bytes()),
          2 * d.macs() + 4 * double(d.images) * double(in[3].shape.numel())};
}

std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  auto add = [&](Shape s, DType t, int kernel, int stride, std::array<int, 4> pad, int64_t squeeze,
                 Act act = Act::silu, bool biases = true, bool large = false, bool apart = false) {
    auto optional = [&](const Shape& shape) {
      return biases ? CaseInput{{shape, DType::f32}} : CaseInput{{}, Fill::absent};
    };
    list.push_back({.attrs = conv_attrs(kernel, stride, pad).set("act", act).set("apart", apart),
                    .in = {{{s, t}},
                           {{{kernel, kernel, s[3]}, t}},
                           optional({s[3]}),
                           {{{squeeze, s[3]}, DType::f32}, Fill::scaled},
                           optional({squeeze}),
                           {{{s[3], squeeze}, DType::f32}, Fill::scaled},
                           optional({s[3]})},
                    .large = large});
  };
  for (DType t : {DType::f32, DType::bf16}) {
    add({2, 5, 14, 24}, t, 3, 1, {1, 1, 1, 1}, 6);
    add({3, 7, 6, 20}, t, 3, 2, {0, 0, 1, 1}, 5);
    add({2, 4, 12, 16}, t, 3, 1, {1, 1, 1, 1}, 4, Act::relu6);
    add({1, 9, 8, 16}, t, 5, 1, {2, 2, 2, 2}, 4, Act::silu, false);
    add({2, 10, 9, 24}, t, 5, 2, {1, 1, 2, 2}, 6, Act::none);
    add({2, 5, 5, 8}, t, 7, 1, {3, 3, 3, 3}, 1);
    add({9, 3, 4, 33}, t, 3, 1, {1, 1, 1, 1}, 9, Act::relu);
    add({2, 14, 7, 72}, t, 3, 2, {0, 0, 1, 1}, 8);
    add({9, 2, 2, 1032}, t, 3, 1, {1, 1, 1, 1}, 66);
    add({2, 5, 14, 24}, t, 3, 1, {1, 1, 1, 1}, 6, Act::silu, true, false, true);
    add({2, 5, 5, 8}, t, 7, 1, {3, 3, 3, 3}, 1, Act::silu, false, false, true);
    add({16, 14, 14, 192}, t, 3, 1, {1, 1, 1, 1}, 12, Act::silu, true, true);
    add({16, 7, 7, 384}, t, 3, 1, {1, 1, 1, 1}, 16, Act::silu, true, true);
  }
  return list;
}

std::vector<CompositionStep> composition(const Attrs& attrs, std::span<const TensorSpec>) {
  std::vector<CompositionStep> steps{
      {.op = "depthwise_conv2d",
       .attrs = Attrs(attrs).set("act", Act::none),
       .in = {"in0", "in1", "in2"},
       .out = {"z"}},
      {.op = "activation", .attrs = act_attrs(act_of(attrs)), .in = {"z"}, .out = {"a"}}};
  add_se_steps(steps, act_of(attrs), 3);
  if (!gate_apart(attrs)) return steps;
  steps.pop_back();  // the scaling
  auto rename = [&](const std::string& from, const std::string& to) {
    for (CompositionStep& s : steps)
      for (auto* names : {&s.in, &s.out}) std::replace(names->begin(), names->end(), from, to);
  };
  rename("a", "out0");
  rename("gate", "out1");
  return steps;
}
}  // namespace

const OpDef& depthwise_se_def() {
  static const OpDef def{
      .name = "depthwise_se",
      .summary = "depthwise convolution + activation + squeeze-and-excitation (inference)",
      .infer = infer,
      .workspace =
          [](Backend backend, Pass, const Attrs& attrs, std::span<const TensorSpec> in) {
            return depthwise_se_workspace(backend, attrs, in).bytes;
          },
      .cost = cost,
      .cases = cases,
      .composition = composition,
      .optional = {2, 4, 6},
  };
  return def;
}

}  // namespace gm
