#include "kernels/batch_norm_act/batch_norm_act.h"

#include "kernels/batch_norm/bn_workspace.h"
#include "kernels/common/op.h"

namespace gm {

Specs batch_norm_act_outputs(const char* op, const Attrs& attrs, const TensorSpec& y) {
  const int act = attrs.geti("act", 0);
  GM_CHECK(act >= 0 && act <= 4, std::string(op) + ": unknown activation " + std::to_string(act));
  if (!pool_of(attrs)) return {y};
  GM_CHECK(y.shape.rank == 4, std::string(op) + ": pool needs (N, H, W, C), not " + y.shape.str());
  return {y, {Shape{y.shape[0], y.shape[3]}, DType::f32}};
}

namespace {
std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  auto add = [&](Shape s, DType t, int act, bool pool, bool training = true, bool large = false) {
    const TensorSpec vector{Shape{s.channels()}, DType::f32};
    list.push_back({.attrs = {{"eps", 1e-3},
                              {"momentum", 0.9},
                              {"training", double(training)},
                              {"act", double(act)},
                              {"pool", double(pool)}},
                    .in = {{{s, t}}, {vector, Fill::positive}, {vector}},
                    .smooth = act != 2 && act != 3,
                    .large = large});
  };
  for (DType t : {DType::f32, DType::bf16}) {
    for (int act = 0; act <= 4; ++act) add({2, 3, 5, 7}, t, act, act % 2 == 1);
    for (bool pool : {false, true}) {
      add({3, 5, 3, 20}, t, 1, pool);
      add({3, 5, 3, 20}, t, 1, pool, false);
      add({1, 9, 7, 24}, t, 1, pool);
      add({6, 1, 1, 1}, t, 1, pool);
      add({2, 17, 16, 40}, t, 1, pool);
      add({32, 8, 8, 240}, t, 1, pool, true, true);
    }
    add({29, 33}, t, 1, false);
  }
  add({16, 7, 7, 1280}, DType::bf16, 1, true, true, true);
  return list;
}

std::vector<CompositionStep> composition(const Attrs& attrs) {
  std::vector<CompositionStep> steps{{.op = "batch_norm",
                                      .attrs = attrs,
                                      .in = {"in0", "in1", "in2"},
                                      .out = {"z"},
                                      .state = {"state0", "state1"}},
                                     {.op = "activation", .attrs = attrs, .in = {"z"}, .out = {"out0"}}};
  if (pool_of(attrs))
    steps.push_back({.op = "global_pool", .attrs = {{"kind", 0}}, .in = {"out0"}, .out = {"out1"}});
  return steps;
}
}  // namespace

const OpDef& batch_norm_act_def() {
  static const OpDef def{
      .name = "batch_norm_act",
      .summary = "batch normalisation + activation (+ global average pool)",
      .infer =
          [](const Attrs& a, std::span<const TensorSpec> in) {
            check_batch_norm("batch_norm_act", a, in[0].shape.channels(), in[1], in[2]);
            return batch_norm_act_outputs("batch_norm_act", a, in[0]);
          },
      .saved = [](const Attrs&,
                  std::span<const TensorSpec> in) { return two_vectors(in[0].shape.channels()); },
      .state = [](const Attrs&,
                  std::span<const TensorSpec> in) { return two_vectors(in[0].shape.channels()); },
      .workspace =
          [](Backend backend, Pass, const Attrs& a, std::span<const TensorSpec> in) {
            return bn_workspace_bytes(backend, in[0], pool_of(a));
          },
      .cost =
          [](Pass pass, const Attrs& a, std::span<const TensorSpec> in) {
            const double x = double(in[0].bytes()), n = double(in[0].shape.numel());
            const bool training = BatchNormAttrs(a).training;
            if (pass == Pass::forward) return Cost{(training ? 3 : 2) * x, (training ? 9 : 6) * n};
            return Cost{5 * x, 20 * n};
          },
      .backward_reads =
          [](const Attrs& a) {
            if (act_of(a) == Act::none) return BackwardReads{.in = {0, 1}, .out = {}};
            return BackwardReads{.in = {0, 1, 2}, .out = {}};
          },
      .cases = cases,
      .composition = composition,
      .differentiable = {0, 1, 2},
      .parameters = {1, 2},
      .forward_inplace = 0,
      .backward_inplace = 0,
  };
  return def;
}

}  // namespace gm
