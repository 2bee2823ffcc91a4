#include "kernels/batch_norm/bn_workspace.h"
#include "kernels/batch_norm_act/bn_act_def.h"
#include "kernels/common/op_checks.h"
#include "kernels/conv2d/conv2d_attrs.h"
#include "kernels/global_pool/global_pool.h"

namespace gm {

Specs bn_act_outputs(const char* op, const Attrs& attrs, const TensorSpec& y, const TensorSpec* residual) {
  const std::string name = op;
  const double rate = attrs.get("rate", 0);
  check_act(name, attrs);
  GM_CHECK(rate >= 0 && rate < 1, name + ": rate " + std::to_string(rate) + " is not in [0, 1)");
  if (residual)
    GM_CHECK(residual->shape == y.shape && residual->dtype == y.dtype,
             name + ": the residual is " + residual->str() + ", the result " + y.str());
  if (!pool_of(attrs)) return {y};
  GM_CHECK(!residual && rate == 0, name + ": pool excludes stochastic depth and a residual");
  GM_CHECK(y.shape.rank == 4, name + ": pool needs (N, H, W, C), not " + y.shape.str());
  return {y, {Shape{y.shape[0], y.shape[3]}, DType::f32}};
}

Specs bn_act_saved(const Attrs& attrs, const TensorSpec& y) {
  Specs s = two_vectors(y.shape.channels());
  if (attrs.get("rate", 0) > 0) s.push_back({Shape{y.shape[0]}, DType::f32});
  return s;
}

const TensorSpec* bn_act_residual(std::span<const TensorSpec> in, size_t k) {
  return in.size() > k && in[k].shape.rank ? &in[k] : nullptr;
}

Cost bn_act_cost(Pass pass, const TensorSpec& y, bool residual) {
  const double bytes = double(y.bytes()), n = double(y.shape.numel());
  if (pass == Pass::forward) return {(residual ? 3 : 2) * bytes, 9 * n};
  return {4 * bytes, 20 * n};
}

BackwardReads bn_act_reads(const Attrs& attrs, std::vector<int> first) {
  if (act_of(attrs) != Act::none) first.push_back(first.back() + 1);
  return {.in = std::move(first), .out = {}};
}

std::vector<CompositionStep> bn_act_steps(const Attrs& attrs, std::span<const TensorSpec> in,
                                          const std::string& x, size_t gamma) {
  auto input = [&](size_t k) { return "in" + std::to_string(gamma + k); };
  std::vector<CompositionStep> steps{{.op = "batch_norm",
                                      .attrs = attrs,
                                      .in = {x, input(0), input(1)},
                                      .out = {"z"},
                                      .state = {"state0", "state1"}},
                                     {.op = "activation", .attrs = attrs, .in = {"z"}, .out = {"out0"}}};
  if (attrs.get("rate", 0) > 0)
    steps.push_back(
        {.op = "dropout", .attrs = Attrs(attrs).set("per_sample", 1), .in = {"out0"}, .out = {"out0"}});
  if (bn_act_residual(in, gamma + 2))
    steps.push_back({.op = "add", .in = {"out0", input(2)}, .out = {"out0"}});
  if (pool_of(attrs))
    steps.push_back(
        {.op = "global_pool", .attrs = {{"kind", PoolKind::average}}, .in = {"out0"}, .out = {"out1"}});
  return steps;
}

OpCase bn_act_case(const Attrs& attrs, std::vector<CaseInput> in, const TensorSpec& y, const BnActCase& c,
                   bool takes_residual) {
  const TensorSpec vector{Shape{y.shape.channels()}, DType::f32};
  in.push_back({vector, Fill::positive});
  in.push_back({vector});
  if (takes_residual) in.push_back(c.residual ? CaseInput{y} : CaseInput{{}, Fill::absent});
  OpCase result{.attrs = attrs,
                .in = std::move(in),
                .smooth = c.act != Act::relu && c.act != Act::relu6,
                .large = c.large};
  result.attrs.set("eps", 1e-3).set("momentum", 0.9).set("training", c.training);
  result.attrs.set("act", c.act).set("pool", c.pool);
  if (c.rate > 0) result.attrs.set("rate", c.rate).set("stream", 3);
  return result;
}

OpCase conv_bn_act_case(const TensorSpec& x, const TensorSpec& w, int stride, std::array<int, 4> pad,
                        BnActCase c, bool takes_residual) {
  const int64_t kernel = w.shape[1];
  auto out = [&](int64_t size, int before, int after) {
    return (size + before + after - kernel) / stride + 1;
  };
  const Attrs attrs = conv_attrs(kernel, stride, pad);
  const bool depthwise = w.shape.rank == 3, rounds = x.dtype == DType::bf16;
  const TensorSpec yc{{x.shape[0], out(x.shape[1], pad[0], pad[2]), out(x.shape[2], pad[1], pad[3]),
                       depthwise ? w.shape[2] : w.shape[0]},
                      x.dtype};
  // A ReLU's slope jumps: a bf16 rounding of yc across the kink would be a true difference of dx.
  if (rounds && (c.act == Act::relu || c.act == Act::relu6)) c.act = Act::silu;
  OpCase result = bn_act_case(attrs, {{x}, {w}}, yc, c, takes_residual);
  if (rounds) {
    result.tolerance = 2e-2;
    result.why = "yc is stored as bf16, and its rounding passes through act' and the convolution";
  }
  return result;
}

namespace {
std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  auto add = [&](Shape s, DType t, const BnActCase& c) {
    list.push_back(bn_act_case({}, {{{s, t}}}, {s, t}, c, true));
  };
  for (DType t : {DType::f32, DType::bf16}) {
    for (Act act : {Act::none, Act::silu, Act::relu, Act::relu6, Act::sigmoid})
      add({2, 3, 5, 7}, t, {.act = act, .pool = act == Act::silu || act == Act::relu6});
    for (bool pool : {false, true}) {
      add({3, 5, 3, 20}, t, {.pool = pool});
      add({3, 5, 3, 20}, t, {.pool = pool, .training = false});
      add({1, 9, 7, 24}, t, {.pool = pool});
      add({6, 1, 1, 1}, t, {.pool = pool});
      add({2, 17, 16, 40}, t, {.pool = pool});
      add({32, 8, 8, 240}, t, {.pool = pool, .large = true});
    }
    add({29, 33}, t, {});
    add({3, 5, 3, 20}, t, {.act = Act::none, .residual = true});
    add({9, 5, 3, 7}, t, {.act = Act::none, .residual = true, .rate = 0.4});
    add({6, 7, 5, 24}, t, {.residual = true, .rate = 0.5});
    add({6, 3, 3, 16}, t, {.training = false, .residual = true, .rate = 0.5});
    add({1, 3, 5, 8}, t, {.residual = true, .rate = 0.1});
    add({7, 4, 4, 12}, t, {.rate = 0.3});
    add({37, 20}, t, {.residual = true, .rate = 0.3});
    add({32, 14, 14, 160}, t, {.act = Act::none, .large = true, .residual = true, .rate = 0.2});
  }
  add({16, 7, 7, 1280}, DType::bf16, {.pool = true, .large = true});
  return list;
}
}  // namespace

const OpDef& batch_norm_act_def() {
  static const OpDef def{
      .name = "batch_norm_act",
      .summary = "batch normalisation + activation (+ stochastic depth, residual or global average pool)",
      .infer =
          [](const Attrs& a, std::span<const TensorSpec> in) {
            check_normalised("batch_norm_act", in[0]);
            check_batch_norm("batch_norm_act", a, in[0].shape.channels(), in[1], in[2]);
            return bn_act_outputs("batch_norm_act", a, in[0], bn_act_residual(in, 3));
          },
      .saved = [](const Attrs& a, std::span<const TensorSpec> in) { return bn_act_saved(a, in[0]); },
      .state = [](const Attrs&,
                  std::span<const TensorSpec> in) { return two_vectors(in[0].shape.channels()); },
      .workspace =
          [](Backend backend, Pass pass, const Attrs& a, std::span<const TensorSpec> in) {
            return bn_workspace_bytes(backend, in[0], pool_of(a),
                                      pass == Pass::forward && a.get("rate", 0) > 0);
          },
      .cost =
          [](Pass pass, const Attrs& a, std::span<const TensorSpec> in) {
            // Training reads x once more, for the statistics; backward writes dx.
            const bool extra = pass == Pass::backward || BatchNormAttrs(a).training;
            Cost cost = bn_act_cost(pass, in[0], bn_act_residual(in, 3));
            if (extra) cost.bytes += double(in[0].bytes());
            return cost;
          },
      .backward_reads =
          [](const Attrs& a) {
            return bn_act_reads(a, {0, 1});
          },
      .cases = cases,
      .composition = [](const Attrs& a,
                        std::span<const TensorSpec> in) { return bn_act_steps(a, in, "in0", 1); },
      .differentiable = {3, 0, 1, 2},  // in this order: see residual_backward
      .parameters = {1, 2},
      .optional = {3},
      .forward_inplace = 0,
      .backward_inplace = {3, 0},
  };
  return def;
}

}  // namespace gm
