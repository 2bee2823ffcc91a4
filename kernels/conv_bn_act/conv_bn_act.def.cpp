#include "kernels/conv_bn_act/conv_bn_act.h"
#include "kernels/batch_norm/bn_workspace.h"
#include "kernels/batch_norm_act/bn_act_def.h"
#include "kernels/conv2d/conv2d_chunking.h"
#include "kernels/conv_bn_act/expand.h"

namespace gm {

namespace {
std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  auto add = [&](Shape s, DType t, int64_t k, int kernel, int stride, std::array<int, 4> pad,
                 const BnActCase& c = {}) {
    list.push_back(conv_bn_act_case({s, t}, {{k, kernel, kernel, s[3]}, t}, stride, pad, c, true));
  };
  for (DType t : {DType::f32, DType::bf16}) {
    add({2, 4, 5, 3}, t, 7, 3, 1, {1, 1, 1, 1}, {.pool = true});
    add({2, 8, 6, 3}, t, 20, 5, 2, {1, 1, 2, 2});  // TensorFlow SAME, even size
    add({3, 7, 6, 7}, t, 9, 3, 2, {0, 1, 1, 0},
        {.act = Act::relu, .pool = true});                               // asymmetric, odd channels
    add({2, 6, 5, 20}, t, 12, 1, 2, {0, 0, 0, 0}, {.act = Act::relu6});  // strided 1x1
    add({5, 5, 7, 8}, t, 17, 1, 1, {0, 0, 0, 0}, {.pool = true});        // 1x1 chunks that cut images
    add({7, 3, 3, 16}, t, 24, 1, 1, {0, 0, 0, 0},
        {.act = Act::none, .pool = true});  // chunks of many small images
    add({2, 9, 11, 4}, t, 8, 1, 1, {0, 0, 0, 0}, {.act = Act::sigmoid, .pool = true, .training = false});
    add({2, 6, 6, 8}, t, 16, 3, 1, {1, 1, 1, 1}, {.training = false});
    // Expanding: in bf16 by kernels of their own (expand.h).
    add({2, 5, 5, 16}, t, 48, 1, 1, {0, 0, 0, 0});                        // fewer runs of channels than warps
    add({3, 7, 9, 24}, t, 144, 1, 1, {0, 0, 0, 0});                       // a tile that is not full
    add({1, 4, 8, 40}, t, 240, 1, 1, {0, 0, 0, 0}, {.training = false});  // one tile
    add({5, 9, 7, 48}, t, 288, 1, 1, {0, 0, 0, 0});                       // fourteen warps
    add({2, 6, 5, 40}, t, 240, 1, 1, {0, 0, 0, 0}, {.residual = true});   // expanding, and not by them
    add({33, 1, 1, 12}, t, 1, 1, 1, {0, 0, 0, 0});
    add({2, 6, 5, 12}, t, 20, 1, 1, {0, 0, 0, 0}, {.act = Act::none, .residual = true});
    add({9, 5, 5, 8}, t, 7, 1, 1, {0, 0, 0, 0}, {.act = Act::none, .residual = true, .rate = 0.4});
    add({6, 6, 5, 8}, t, 8, 3, 1, {1, 1, 1, 1}, {.residual = true, .rate = 0.5});
    add({5, 4, 4, 8}, t, 24, 1, 1, {0, 0, 0, 0},
        {.act = Act::none, .training = false, .residual = true, .rate = 0.3});
    add({1, 5, 3, 4}, t, 16, 3, 1, {1, 1, 1, 1}, {.residual = true, .rate = 0.2});
  }
  for (DType t : {DType::f32, DType::bf16}) {
    add({4, 64, 64, 3}, t, 32, 5, 2, {1, 1, 2, 2}, {.large = true});  // stem of G0 at 64
    add({8, 32, 32, 16}, t, 96, 1, 1, {0, 0, 0, 0}, {.large = true});
    add({2, 24, 24, 32}, t, 192, 1, 1, {0, 0, 0, 0}, {.large = true});
    add({2, 12, 12, 72}, t, 432, 1, 1, {0, 0, 0, 0}, {.large = true});
    add({2, 14, 14, 64}, t, 256, 1, 1, {0, 0, 0, 0}, {.large = true});
    add({16, 4, 4, 480}, t, 80, 1, 1, {0, 0, 0, 0}, {.act = Act::none, .large = true});
    add({64, 4, 4, 80}, t, 160, 1, 1, {0, 0, 0, 0}, {.pool = true, .large = true});  // head of G0
    add({2, 28, 28, 24}, t, 96, 3, 1, {1, 1, 1, 1}, {.large = true});                // Fused-MBConv
    add({4, 28, 28, 96}, t, 24, 1, 1, {0, 0, 0, 0},
        {.act = Act::none, .large = true, .residual = true, .rate = 0.1});
  }
  // Bands of rows, pooled.
  add({1, 56, 56, 8}, DType::f32, 32, 3, 1, {1, 1, 1, 1}, {.pool = true, .training = false, .large = true});
  return list;
}

size_t workspace(Backend backend, Pass pass, const Attrs& attrs, std::span<const TensorSpec> in) {
  const ConvGeometry g = conv_geometry(attrs, in);
  const TensorSpec yc = conv_bn_product(attrs, in);
  if (backend != Backend::cpu) {
    const size_t steps = std::max(
        conv_workspace(backend, pass, g),
        bn_workspace_bytes(backend, yc, pool_of(attrs), pass == Pass::forward && attrs.get("rate", 0) > 0));
    return steps + (pass == Pass::backward ? conv_bn_backward_bytes(attrs, g, bn_act_residual(in, 4)) : 0);
  }
  const ConvChunking chunking(g, pass);
  if (pass == Pass::forward)
    return chunking.packed_bytes(onednn::ConvPass::forward) + bn_cpu_workspace(chunking.chunks, g.k);
  return chunking.packed_bytes(onednn::ConvPass::backward_data) + chunking.partials_bytes() +
         bn_cpu_workspace(bn_chunks_of(yc, pool_of(attrs)).count, g.k);
}

std::vector<CompositionStep> composition(const Attrs& attrs, std::span<const TensorSpec> in) {
  auto steps = bn_act_steps(attrs, in, "yc", 2);
  steps.insert(steps.begin(), {.op = "conv2d",
                               .attrs = Attrs(attrs).set("act", Act::none),
                               .in = {"in0", "in1", "no bias"},
                               .out = {"yc"}});
  return steps;
}
}  // namespace

const OpDef& conv_bn_act_def() {
  static const OpDef def{
      .name = "conv_bn_act",
      .summary =
          "dense convolution + batch normalisation + activation (+ stochastic depth, residual or pool)",
      .infer =
          [](const Attrs& a, std::span<const TensorSpec> in) {
            const TensorSpec yc = conv_bn_product(a, in);
            check_batch_norm("conv_bn_act", a, yc.shape[3], in[2], in[3]);
            return bn_act_outputs("conv_bn_act", a, yc, bn_act_residual(in, 4));
          },
      .saved =
          [](const Attrs& a, std::span<const TensorSpec> in) {
            Specs s{conv_bn_product(a, in)};
            for (const TensorSpec& v : bn_act_saved(a, s[0])) s.push_back(v);
            return s;
          },
      .state = [](const Attrs&, std::span<const TensorSpec> in) { return two_vectors(in[1].shape[0]); },
      .workspace = workspace,
      .cost =
          [](Pass pass, const Attrs& a, std::span<const TensorSpec> in) {
            const ConvGeometry g = conv_geometry(a, in);
            const TensorSpec yc = conv_bn_product(a, in);
            const double x = double(in[0].bytes()), w = double(in[1].bytes()), y = double(yc.bytes());
            const Cost c = bn_act_cost(pass, yc, bn_act_residual(in, 4));
            if (pass == Pass::forward) return Cost{x + w + y + c.bytes, 2 * g.macs() + c.flops};
            return Cost{2 * x + w + 4. * double(g.weights()) + c.bytes, 4 * g.macs() + c.flops};
          },
      .backward_reads =
          [](const Attrs& a) {
            return bn_act_reads(a, {0, 1, 2});
          },
      .cases = cases,
      .composition = composition,
      .differentiable = {4, 0, 1, 2, 3},  // in this order: see residual_backward
      .parameters = {1, 2, 3},
      .optional = {4},
      .backward_inplace = {4},
  };
  return def;
}

}  // namespace gm
