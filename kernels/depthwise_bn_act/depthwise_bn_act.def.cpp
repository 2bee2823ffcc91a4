#include "kernels/depthwise_bn_act/depthwise_bn_act.h"
#include "kernels/batch_norm/bn_workspace.h"
#include "kernels/batch_norm_act/bn_act_def.h"
#include "kernels/depthwise_conv2d/depthwise_gpu.h"

namespace gm {

namespace {
TensorSpec conv_output(const Attrs& a, std::span<const TensorSpec> in) {
  return {DepthwiseShape(a, in[0].shape).output(), in[0].dtype};
}

std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  auto add = [&](Shape s, DType t, int kernel, int stride, std::array<int, 4> pad, const BnActCase& c = {}) {
    list.push_back(conv_bn_act_case({s, t}, {{kernel, kernel, s[3]}, t}, stride, pad, c, false));
  };
  for (DType t : {DType::f32, DType::bf16}) {
    add({2, 5, 6, 7}, t, 3, 1, {1, 1, 1, 1}, {.pool = true});
    add({2, 7, 6, 20}, t, 3, 2, {0, 0, 1, 1});
    add({1, 9, 10, 16}, t, 5, 1, {2, 2, 2, 2}, {.pool = true, .training = false});
    add({2, 10, 9, 24}, t, 5, 2, {1, 1, 2, 2}, {.act = Act::relu6});
    add({2, 9, 8, 8}, t, 7, 1, {3, 3, 3, 3}, {.act = Act::none});
    add({3, 9, 8, 9}, t, 7, 2, {2, 2, 3, 3}, {.act = Act::sigmoid, .pool = true});
    add({3, 14, 14, 40}, t, 3, 1, {1, 1, 1, 1});
    add({3, 6, 12, 40}, t, 3, 1, {1, 1, 1, 1}, {.act = Act::relu});
    add({3, 6, 12, 40}, t, 3, 1, {1, 1, 1, 1}, {.training = false});
    add({3, 6, 12, 40}, t, 5, 1, {2, 2, 2, 2});
    add({3, 7, 8, 33}, t, 5, 1, {2, 2, 2, 2}, {.act = Act::relu, .pool = true});
    add({2, 4, 4, 136}, t, 3, 2, {0, 0, 1, 1}, {.act = Act::relu, .pool = true, .training = false});
    add({4, 12, 13, 33}, t, 5, 1, {2, 2, 2, 2}, {.pool = true});
    add({16, 16, 16, 144}, t, 3, 1, {1, 1, 1, 1}, {.large = true});
  }
  add({8, 32, 32, 96}, DType::f32, 3, 2, {0, 0, 1, 1}, {.large = true});
  add({16, 8, 8, 240}, DType::f32, 5, 1, {2, 2, 2, 2}, {.large = true});
  add({8, 14, 14, 256}, DType::bf16, 3, 1, {1, 1, 1, 1}, {.pool = true, .large = true});
  return list;
}

size_t workspace(Backend backend, Pass pass, const Attrs& attrs, std::span<const TensorSpec> in) {
  const DepthwiseShape d(attrs, in[0].shape);
  const TensorSpec yc = conv_output(attrs, in);
  const size_t weights = static_cast<size_t>(d.taps() * d.channels) * sizeof(float);
  if (backend != Backend::cpu)
    return bn_gpu_workspace(d.channels) + (pass == Pass::backward ? depthwise_gpu_workspace(d) : 0);
  const size_t bn = bn_workspace_bytes(backend, yc, true);
  return bn + weights * (pass == Pass::forward ? 1 : 1 + depthwise_groups(d));
}

std::vector<CompositionStep> composition(const Attrs& attrs, std::span<const TensorSpec> in) {
  auto steps = bn_act_steps(attrs, in, "yc", 2);
  steps.insert(steps.begin(), {.op = "depthwise_conv2d",
                               .attrs = Attrs(attrs).set("act", Act::none),
                               .in = {"in0", "in1", "no bias"},
                               .out = {"yc"}});
  return steps;
}
}  // namespace

const OpDef& depthwise_bn_act_def() {
  static const OpDef def{
      .name = "depthwise_bn_act",
      .summary = "depthwise convolution + batch normalisation + activation (+ global average pool)",
      .infer =
          [](const Attrs& a, std::span<const TensorSpec> in) {
            const TensorSpec yc = check_depthwise("depthwise_bn_act", a, in[0], in[1]);
            check_batch_norm("depthwise_bn_act", a, yc.shape[3], in[2], in[3]);
            GM_CHECK(a.get("rate", 0) == 0, "depthwise_bn_act: no stochastic depth");
            return bn_act_outputs("depthwise_bn_act", a, yc);
          },
      .saved =
          [](const Attrs& a, std::span<const TensorSpec> in) {
            Specs s{conv_output(a, in)};
            for (const TensorSpec& v : two_vectors(in[0].shape[3])) s.push_back(v);
            return s;
          },
      .state = [](const Attrs&, std::span<const TensorSpec> in) { return two_vectors(in[0].shape[3]); },
      .workspace = workspace,
      .cost =
          [](Pass pass, const Attrs& a, std::span<const TensorSpec> in) {
            const DepthwiseShape d(a, in[0].shape);
            const TensorSpec yc = conv_output(a, in);
            const double x = double(in[0].bytes()), y = double(yc.bytes());
            const Cost c = bn_act_cost(pass, yc);
            if (pass == Pass::forward) return Cost{x + y + c.bytes, 2 * d.macs() + c.flops};
            return Cost{2 * x + c.bytes, 4 * d.macs() + c.flops};
          },
      .backward_reads =
          [](const Attrs& a) {
            return bn_act_reads(a, {0, 1, 2});
          },
      .cases = cases,
      .composition = composition,
      .differentiable = {0, 1, 2, 3},
      .parameters = {1, 2, 3},
  };
  return def;
}

}  // namespace gm
