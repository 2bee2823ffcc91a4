#include "kernels/depthwise_bn_act/depthwise_bn_act.h"
#include "kernels/batch_norm/bn_workspace.h"
#include "kernels/common/op.h"
#include "kernels/depthwise_conv2d/depthwise_gpu.h"

namespace gm {

namespace {
TensorSpec conv_output(const Attrs& a, std::span<const TensorSpec> in) {
  return {DepthwiseShape(a, in[0].shape).output(), in[0].dtype};
}

std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  struct Pads {
    int top, left, bottom, right;
  };
  auto add = [&](Shape s, DType t, int kernel, int stride, Pads p, int act, bool pool, bool training = true,
                 bool large = false) {
    // A ReLU's slope jumps: a bf16 rounding of yc across the kink would be a true difference of dx.
    const bool kinked = act == int(Act::relu) || act == int(Act::relu6);
    if (kinked && t == DType::bf16) act = int(Act::silu);
    const TensorSpec vector{{s[3]}, DType::f32};
    list.push_back({.attrs = {{"kernel", double(kernel)},
                              {"stride", double(stride)},
                              {"pad_top", double(p.top)},
                              {"pad_left", double(p.left)},
                              {"pad_bottom", double(p.bottom)},
                              {"pad_right", double(p.right)},
                              {"eps", 1e-3},
                              {"momentum", 0.9},
                              {"training", double(training)},
                              {"act", double(act)},
                              {"pool", double(pool)}},
                    .in = {{{s, t}}, {{{kernel, kernel, s[3]}, t}}, {vector, Fill::positive}, {vector}},
                    .tolerance = t == DType::bf16 ? 2e-2 : 0,
                    .why = "yc is stored as bf16, and its rounding passes through act' and the convolution",
                    .smooth = !kinked,
                    .large = large});
  };
  for (DType t : {DType::f32, DType::bf16}) {
    add({2, 5, 6, 7}, t, 3, 1, {1, 1, 1, 1}, 1, true);
    add({2, 7, 6, 20}, t, 3, 2, {0, 0, 1, 1}, 1, false);
    add({1, 9, 10, 16}, t, 5, 1, {2, 2, 2, 2}, 1, true, false);
    add({2, 10, 9, 24}, t, 5, 2, {1, 1, 2, 2}, 3, false);
    add({2, 9, 8, 8}, t, 7, 1, {3, 3, 3, 3}, 0, false);
    add({3, 9, 8, 9}, t, 7, 2, {2, 2, 3, 3}, 4, true);
    add({3, 14, 14, 40}, t, 3, 1, {1, 1, 1, 1}, 1, false);
    add({2, 4, 4, 136}, t, 3, 2, {0, 0, 1, 1}, 2, true, false);
    add({4, 12, 13, 33}, t, 5, 1, {2, 2, 2, 2}, 1, true);
    add({16, 16, 16, 144}, t, 3, 1, {1, 1, 1, 1}, 1, false, true, true);
  }
  add({8, 32, 32, 96}, DType::f32, 3, 2, {0, 0, 1, 1}, 1, false, true, true);
  add({16, 8, 8, 240}, DType::f32, 5, 1, {2, 2, 2, 2}, 1, false, true, true);
  add({8, 14, 14, 256}, DType::bf16, 3, 1, {1, 1, 1, 1}, 1, true, true, true);
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

std::vector<CompositionStep> composition(const Attrs& attrs) {
  std::vector<CompositionStep> steps{{.op = "depthwise_conv2d",
                                      .attrs = Attrs(attrs).set("act", 0),
                                      .in = {"in0", "in1", "no bias"},
                                      .out = {"yc"}},
                                     {.op = "batch_norm",
                                      .attrs = attrs,
                                      .in = {"yc", "in2", "in3"},
                                      .out = {"z"},
                                      .state = {"state0", "state1"}},
                                     {.op = "activation", .attrs = attrs, .in = {"z"}, .out = {"out0"}}};
  if (pool_of(attrs))
    steps.push_back({.op = "global_pool", .attrs = {{"kind", 0}}, .in = {"out0"}, .out = {"out1"}});
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
            return batch_norm_act_outputs("depthwise_bn_act", a, yc);
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
            const double x = double(in[0].bytes()), y = x * double(d.out_image()) / double(d.in_image());
            const double n = double(d.images * d.out_image());
            if (pass == Pass::forward) return Cost{x + 3 * y, 2 * d.macs() + 9 * n};
            return Cost{2 * x + 4 * y, 4 * d.macs() + 20 * n};
          },
      .backward_reads =
          [](const Attrs& a) {
            if (act_of(a) == Act::none) return BackwardReads{.in = {0, 1, 2}, .out = {}};
            return BackwardReads{.in = {0, 1, 2, 3}, .out = {}};
          },
      .cases = cases,
      .composition = composition,
      .differentiable = {0, 1, 2, 3},
      .parameters = {1, 2, 3},
  };
  return def;
}

}  // namespace gm
