#include "kernels/conv_bn_act/conv_bn_act.h"
#include "kernels/batch_norm/bn_workspace.h"
#include "kernels/common/op.h"
#include "kernels/conv2d/conv2d_plan.h"

namespace gm {

namespace {
std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  struct Pads {
    int top, left, bottom, right;
  };
  auto add = [&](Shape s, DType t, int64_t k, int kernel, int stride, Pads p, int act, bool pool,
                 bool training = true, bool large = false) {
    // A ReLU's slope jumps: a bf16 rounding of yc across the kink would be a true difference of dx.
    const bool kinked = act == int(Act::relu) || act == int(Act::relu6);
    if (kinked && t == DType::bf16) act = int(Act::silu);
    const TensorSpec vector{{k}, DType::f32};
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
                    .in = {{{s, t}}, {{{k, kernel, kernel, s[3]}, t}}, {vector, Fill::positive}, {vector}},
                    .tolerance = t == DType::bf16 ? 2e-2 : 0,
                    .why = "yc is stored as bf16, and its rounding passes through act' and the convolution",
                    .smooth = !kinked,
                    .large = large});
  };
  for (DType t : {DType::f32, DType::bf16}) {
    add({2, 4, 5, 3}, t, 7, 3, 1, {1, 1, 1, 1}, 1, true);
    add({2, 8, 6, 3}, t, 20, 5, 2, {1, 1, 2, 2}, 1, false);         // TensorFlow SAME of an even size
    add({3, 7, 6, 7}, t, 9, 3, 2, {0, 1, 1, 0}, 2, true);           // asymmetric, odd channels
    add({2, 6, 5, 20}, t, 12, 1, 2, {0, 0, 0, 0}, 3, false);        // strided 1x1
    add({5, 5, 7, 8}, t, 17, 1, 1, {0, 0, 0, 0}, 1, true);          // chunks of 1x1 that cut images
    add({7, 3, 3, 16}, t, 24, 1, 1, {0, 0, 0, 0}, 0, true);         // chunks of many small images
    add({2, 9, 11, 4}, t, 8, 1, 1, {0, 0, 0, 0}, 4, true, false);   // frozen, pooled
    add({2, 6, 6, 8}, t, 16, 3, 1, {1, 1, 1, 1}, 1, false, false);  // frozen
    add({33, 1, 1, 12}, t, 1, 1, 1, {0, 0, 0, 0}, 1, false);
  }
  for (DType t : {DType::f32, DType::bf16}) {
    add({4, 64, 64, 3}, t, 32, 5, 2, {1, 1, 2, 2}, 1, false, true, true);  // stem of G0 at 64
    add({8, 32, 32, 16}, t, 96, 1, 1, {0, 0, 0, 0}, 1, false, true, true);
    add({16, 4, 4, 480}, t, 80, 1, 1, {0, 0, 0, 0}, 0, false, true, true);
    add({64, 4, 4, 80}, t, 160, 1, 1, {0, 0, 0, 0}, 1, true, true, true);   // head of G0
    add({2, 28, 28, 24}, t, 96, 3, 1, {1, 1, 1, 1}, 1, false, true, true);  // Fused-MBConv
  }
  add({1, 56, 56, 8}, DType::f32, 32, 3, 1, {1, 1, 1, 1}, 1, true, false, true);  // bands of rows, pooled
  return list;
}

size_t workspace(Backend backend, Pass pass, const Attrs& attrs, std::span<const TensorSpec> in) {
  const ConvGeometry g = conv_geometry(attrs, in);
  const TensorSpec yc = conv_bn_product(attrs, in);
  if (backend != Backend::cpu) {
    const size_t steps =
        std::max(conv_workspace(backend, pass, g), bn_workspace_bytes(backend, yc, pool_of(attrs)));
    return steps + (pass == Pass::backward ? ConvPlan::aligned(yc.bytes()) : 0);
  }
  const ConvPlan plan(g, pass);
  if (pass == Pass::forward)
    return plan.packed_bytes(onednn::ConvPass::forward) + bn_cpu_workspace(plan.chunks, g.k);
  return plan.packed_bytes(onednn::ConvPass::backward_data) + plan.partials_bytes() +
         bn_cpu_workspace(bn_chunks_of(yc, pool_of(attrs)).count, g.k);
}

std::vector<CompositionStep> composition(const Attrs& attrs) {
  std::vector<CompositionStep> steps{
      {.op = "conv2d", .attrs = Attrs(attrs).set("act", 0), .in = {"in0", "in1", "no bias"}, .out = {"yc"}},
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

const OpDef& conv_bn_act_def() {
  static const OpDef def{
      .name = "conv_bn_act",
      .summary = "dense convolution + batch normalisation + activation (+ global average pool)",
      .infer =
          [](const Attrs& a, std::span<const TensorSpec> in) {
            const TensorSpec yc = conv_bn_product(a, in);
            check_batch_norm("conv_bn_act", a, yc.shape[3], in[2], in[3]);
            return batch_norm_act_outputs("conv_bn_act", a, yc);
          },
      .saved =
          [](const Attrs& a, std::span<const TensorSpec> in) {
            Specs s{conv_bn_product(a, in)};
            for (const TensorSpec& v : two_vectors(in[1].shape[0])) s.push_back(v);
            return s;
          },
      .state = [](const Attrs&, std::span<const TensorSpec> in) { return two_vectors(in[1].shape[0]); },
      .workspace = workspace,
      .cost =
          [](Pass pass, const Attrs& a, std::span<const TensorSpec> in) {
            const ConvGeometry g = conv_geometry(a, in);
            const double x = double(in[0].bytes()), w = double(in[1].bytes()),
                         y = double(conv_bn_product(a, in).bytes()), n = double(g.out_pixels() * g.k);
            if (pass == Pass::forward) return Cost{x + w + 3 * y, 2 * g.macs() + 9 * n};
            return Cost{2 * x + w + 4. * double(g.weights()) + 4 * y, 4 * g.macs() + 20 * n};
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
