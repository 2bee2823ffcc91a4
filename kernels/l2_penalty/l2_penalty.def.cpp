#include "kernels/l2_penalty/l2_penalty.h"

#include "kernels/common/op.h"
#include "kernels/common/op_checks.h"
#include "kernels/common/squares.h"

namespace gm {

namespace {

std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  auto add = [&](Shape w, DType t, double factor, Fill fill = Fill::normal, bool large = false) {
    list.push_back({.attrs = {{"factor", factor}},
                    .in = {{{{1}, DType::f32}, fill}, {{w, t}, fill}},
                    .exact = fill == Fill::integers,
                    .large = large});
  };
  for (DType t : {DType::f32, DType::bf16}) {
    add({1, 1}, t, 0.01);
    add({3, 7}, t, 0.1);
    add({20, 5}, t, 0.5);
    add({8193}, t, 1e-3);  // one element in the second slice
    add({4096, 1280}, t, 1e-4, Fill::normal, true);
  }
  add({130, 129}, DType::f32, 0.25, Fill::integers);
  return list;
}

}  // namespace

const OpDef& l2_penalty_def() {
  static const OpDef def{
      .name = "l2_penalty",
      .summary = "adds factor * sum w^2 to a loss",
      .infer =
          [](const Attrs&, std::span<const TensorSpec> in) {
            check_f32("l2_penalty", "the loss", in[0], {1});
            check_float("l2_penalty", "w", in[1]);
            return Specs{in[0]};
          },
      .workspace =
          [](Backend, Pass pass, const Attrs&, std::span<const TensorSpec> in) {
            return pass == Pass::backward ? size_t{0}
                                          : sizeof(float) * square_slices(in[1].shape.numel()).count;
          },
      .cost =
          [](Pass pass, const Attrs&, std::span<const TensorSpec> in) {
            const double n = double(in[1].shape.numel());
            return Cost{double(in[1].bytes()) + (pass == Pass::forward ? 8 : 4 * n), 2 * n};
          },
      .backward_reads = [](const Attrs&) { return BackwardReads{.in = {1}, .out = {}}; },
      .cases = cases,
      .differentiable = {0, 1},
      .parameters = {1},
  };
  return def;
}

}  // namespace gm
