#include "kernels/depthwise_bn_se/depthwise_bn_se.h"

#include "kernels/batch_norm/bn_workspace.h"
#include "kernels/batch_norm_act/bn_act_def.h"
#include "kernels/depthwise_bn_se/se_layers.h"

namespace gm {

namespace {
TensorSpec conv_output(const Attrs& a, std::span<const TensorSpec> in) {
  return {DepthwiseShape(a, in[0].shape).output(), in[0].dtype};
}

Specs infer(const Attrs& a, std::span<const TensorSpec> in) {
  const TensorSpec yc = check_depthwise("depthwise_bn_se", a, in[0], in[1]);
  const int64_t channels = yc.shape[3];
  check_batch_norm("depthwise_bn_se", a, channels, in[2], in[3]);
  GM_CHECK(a.get("rate", 0) == 0 && !pool_of(a), "depthwise_bn_se: no stochastic depth and no pooled output");
  check_se_layers("depthwise_bn_se", in, 4, channels);
  return {yc};
}

Specs saved(const Attrs& a, std::span<const TensorSpec> in) {
  const TensorSpec yc = conv_output(a, in);
  const Shape wide{yc.shape[0], yc.shape[3]}, narrow{yc.shape[0], in[4].shape[0]};
  Specs s{yc};
  for (const TensorSpec& v : two_vectors(yc.shape[3])) s.push_back(v);
  for (const Shape& shape : {wide, narrow, narrow, wide, wide}) s.push_back({shape, DType::f32});
  return s;
}

Cost cost(Pass pass, const Attrs& a, std::span<const TensorSpec> in) {
  const DepthwiseShape d(a, in[0].shape);
  const TensorSpec yc = conv_output(a, in);
  const double x = double(in[0].bytes()), y = double(yc.bytes()), n = double(yc.shape.numel());
  const double layers = 2 * double(in[4].bytes()), macs = 2 * double(d.images) * double(in[4].shape.numel());
  // Forward: yc written, read for the pool and for y. Backward: dy and yc read twice.
  if (pass == Pass::forward) return {x + 4 * y + layers, 2 * (d.macs() + macs) + 17 * n};
  return {2 * x + 4 * y + 2 * layers, 4 * (d.macs() + macs) + 35 * n};
}

std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  auto add = [&](Shape s, DType t, int kernel, int stride, std::array<int, 4> pad, int64_t squeeze,
                 bool biases = true, const BnActCase& b = {}, Fill fill = Fill::normal) {
    OpCase c = conv_bn_act_case({s, t}, {{kernel, kernel, s[3]}, t}, stride, pad, b, false);
    auto layer = [&](const Shape& w, const Shape& bias) {
      c.in.push_back({{w, DType::f32}, fill});
      c.in.push_back(biases ? CaseInput{{bias, DType::f32}} : CaseInput{{}, Fill::absent});
    };
    // The separate ops are as far from the reference: 0.06 in bf16.
    if (b.large || t == DType::bf16) {
      c.tolerance = t == DType::bf16 ? 8e-2 : 1e-4;
      c.why = "the gradient of the gate is a sum of rounded values that cancels, and meets two more slopes";
    }
    layer({squeeze, s[3]}, {squeeze});
    layer({s[3], squeeze}, {s[3]});
    list.push_back(c);
  };
  for (DType t : {DType::f32, DType::bf16}) {
    add({2, 5, 6, 7}, t, 3, 1, {1, 1, 1, 1}, 3);
    add({3, 7, 6, 20}, t, 3, 2, {0, 0, 1, 1}, 5);
    add({2, 9, 10, 16}, t, 5, 1, {2, 2, 2, 2}, 4, false);
    add({2, 10, 9, 24}, t, 5, 2, {1, 1, 2, 2}, 6, true, {.training = false});
    add({2, 9, 8, 8}, t, 7, 1, {3, 3, 3, 3}, 1, true, {.act = Act::none});
    add({17, 4, 4, 33}, t, 3, 1, {1, 1, 1, 1}, 9, true, {.act = Act::relu});
    add({2, 8, 8, 72}, t, 3, 1, {1, 1, 1, 1}, 8);
    add({2, 7, 12, 40}, t, 5, 1, {2, 2, 2, 2}, 8);
    add({35, 2, 2, 40}, t, 3, 1, {1, 1, 1, 1}, 4);
    add({3, 3, 3, 160}, t, 3, 1, {1, 1, 1, 1}, 40);
    add({5, 2, 2, 1032}, t, 3, 1, {1, 1, 1, 1}, 68, true, {}, Fill::scaled);
    add({16, 14, 14, 192}, t, 3, 1, {1, 1, 1, 1}, 12, true, {.large = true});
    add({16, 8, 8, 240}, t, 5, 1, {2, 2, 2, 2}, 10, true, {.large = true});
  }
  return list;
}

std::vector<CompositionStep> composition(const Attrs& attrs, std::span<const TensorSpec> in) {
  auto steps = bn_act_steps(attrs, in.first(4), "yc", 2);
  steps.back().out = {"a"};
  steps.insert(steps.begin(), {.op = "depthwise_conv2d",
                               .attrs = Attrs(attrs).set("act", Act::none),
                               .in = {"in0", "in1", "no bias"},
                               .out = {"yc"}});
  add_se_steps(steps, act_of(attrs), 4);
  return steps;
}
}  // namespace

DepthwiseBnSeWorkspace depthwise_bn_se_workspace(Backend backend, Pass pass, const Attrs& attrs,
                                                 std::span<const TensorSpec> in) {
  const DepthwiseShape d(attrs, in[0].shape);
  const Attrs pooled = Attrs(attrs).set("pool", 1);
  DepthwiseBnSeWorkspace w;
  w.bytes = find_op("depthwise_bn_act").workspace(backend, pass, pooled, in.first(4));
  auto take = [&](int64_t bytes) {
    const size_t here = aligned_bytes(w.bytes);
    w.bytes = here + static_cast<size_t>(bytes);
    return here;
  };
  const int64_t wide = 4 * d.images * d.channels, narrow = 4 * d.images * in[4].shape[0];
  if (pass == Pass::forward) {
    w.pooled = take(wide), w.squeezed = take(narrow), w.acted = take(narrow);
    w.excited = take(wide), w.gate = take(wide);
  } else {
    w.dexcited = take(wide), w.dacted = take(narrow), w.dsqueezed = take(narrow), w.dpooled = take(wide);
    if (backend == Backend::cpu) {
      const int64_t y = static_cast<int64_t>(conv_output(attrs, in).bytes());
      w.dgate = take(wide), w.a = take(y), w.da = take(y);
    } else {
      w.sums = take(5 * wide);
    }
  }
  if (backend != Backend::cpu) return w;
  w.layers = take(static_cast<int64_t>(se_linear_workspace(pass, in, 4, d.images)));
  return w;
}

SeLayers::SeLayers(const OpCall& c, Backend backend, Pass pass)
    : call(c), workspace(static_cast<char*>(c.workspace.data)) {
  Specs in;
  for (const View& v : c.in) in.push_back(v ? v.spec : TensorSpec{});
  at = depthwise_bn_se_workspace(backend, pass, c.attrs, in);
  const Shape x = c.in[0].shape(), s = c.in[4].shape();
  const DType t = c.in[4].dtype();
  auto place = [&](size_t i, size_t offset, int64_t columns) {
    const View& v = c.saved[i];
    return v ? v : View{workspace + offset, {Shape{x[0], columns}, t}};
  };
  pooled = place(3, at.pooled, s[1]), squeezed = place(4, at.squeezed, s[0]),
  acted = place(5, at.acted, s[0]);
  excited = place(6, at.excited, s[1]), gate = place(7, at.gate, s[1]);
}

const OpDef& depthwise_bn_se_def() {
  static const OpDef def{
      .name = "depthwise_bn_se",
      .summary = "depthwise convolution + batch normalisation + activation + squeeze-and-excitation",
      .infer = infer,
      .saved = saved,
      .state = [](const Attrs&, std::span<const TensorSpec> in) { return two_vectors(in[0].shape[3]); },
      .workspace =
          [](Backend backend, Pass pass, const Attrs& attrs, std::span<const TensorSpec> in) {
            return depthwise_bn_se_workspace(backend, pass, attrs, in).bytes;
          },
      .cost = cost,
      .backward_reads =
          [](const Attrs&) {
            return BackwardReads{.in = {0, 1, 2, 3, 4, 6}, .out = {}};
          },
      .cases = cases,
      .composition = composition,
      .differentiable = {0, 1, 2, 3, 4, 5, 6, 7},
      .parameters = {1, 2, 3, 4, 5, 6, 7},
      .optional = {5, 7},
  };
  return def;
}

}  // namespace gm
