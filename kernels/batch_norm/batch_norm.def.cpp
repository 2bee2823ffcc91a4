#include "kernels/batch_norm/batch_norm.h"

#include "kernels/batch_norm/bn_workspace.h"
#include "kernels/common/op.h"
#include "kernels/common/op_checks.h"

namespace gm {

void check_batch_norm(const char* op, const Attrs& attrs, int64_t channels, const TensorSpec& gamma,
                      const TensorSpec& beta) {
  const std::string name = op;
  const BatchNormAttrs a(attrs);
  GM_CHECK(a.eps > 0, name + ": eps must be positive, not " + number_text(a.eps));
  GM_CHECK(a.momentum >= 0 && a.momentum <= 1,
           name + ": momentum must be in [0, 1], not " + number_text(a.momentum));
  check_f32(name, "gamma", gamma, {channels});
  check_f32(name, "beta", beta, {channels});
}
Specs two_vectors(int64_t channels) { return {{Shape{channels}, DType::f32}, {Shape{channels}, DType::f32}}; }

namespace {
std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  auto add = [&](Shape s, DType t, bool training, bool unbiased, bool large = false) {
    const TensorSpec vector{Shape{s.channels()}, DType::f32};
    list.push_back({.attrs = {{"eps", 1e-3},
                              {"momentum", unbiased ? 0.9 : 0.99},
                              {"training", training},
                              {"unbiased", unbiased}},
                    .in = {{{s, t}}, {vector, Fill::positive}, {vector}},
                    .large = large});
  };
  for (DType t : {DType::f32, DType::bf16})
    for (bool training : {true, false}) {
      add({2, 3, 5, 7}, t, training, false);
      add({4, 3, 3, 20}, t, training, true);
      add({37, 24}, t, training, false);
      add({5, 1, 1, 1}, t, training, true);
      add({3, 17, 9, 33}, t, training, false);
      add({1, 1, 1, 40}, t, false, false);
      add({2, 40, 41, 16}, t, training, true);
      add({32, 8, 8, 240}, t, training, false, true);
    }
  add({64, 7, 7, 256}, DType::bf16, true, false, true);
  return list;
}
}  // namespace

const OpDef& batch_norm_def() {
  static const OpDef def{
      .name = "batch_norm",
      .summary = "batch normalisation: batch or running statistics, scale and shift",
      .infer =
          [](const Attrs& a, std::span<const TensorSpec> in) {
            check_normalised("batch_norm", in[0]);
            check_batch_norm("batch_norm", a, in[0].shape.channels(), in[1], in[2]);
            return Specs{in[0]};
          },
      .saved = [](const Attrs&,
                  std::span<const TensorSpec> in) { return two_vectors(in[0].shape.channels()); },
      .state = [](const Attrs&,
                  std::span<const TensorSpec> in) { return two_vectors(in[0].shape.channels()); },
      .workspace = [](Backend backend, Pass, const Attrs&,
                      std::span<const TensorSpec> in) { return bn_workspace_bytes(backend, in[0], false); },
      .cost =
          [](Pass pass, const Attrs& a, std::span<const TensorSpec> in) {
            // Training reads x (and dy) twice: statistics, then apply.
            const double x = double(in[0].bytes()), n = double(in[0].shape.numel());
            const bool training = BatchNormAttrs(a).training;
            if (pass == Pass::forward) return Cost{(training ? 3 : 2) * x, (training ? 6 : 3) * n};
            return Cost{5 * x, 9 * n};
          },
      .backward_reads =
          [](const Attrs&) {
            return BackwardReads{.in = {0, 1}, .out = {}};
          },
      .cases = cases,
      .differentiable = {0, 1, 2},
      .parameters = {1, 2},
      .forward_inplace = 0,
      .backward_inplace = {0},
  };
  return def;
}

}  // namespace gm
