#include "kernels/add/add.h"

#include "kernels/common/op_checks.h"

namespace gm {

namespace {
std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  auto add = [&](Shape s, DType t, bool exact = false, bool large = false) {
    const Fill fill = exact ? Fill::integers : Fill::normal;
    list.push_back({.in = {{{s, t}, fill}, {{s, t}, fill}}, .exact = exact, .large = large});
  };
  for (DType t : {DType::f32, DType::bf16}) {
    add({1, 1, 1, 1}, t);
    add({2, 3, 5, 7}, t);
    add({3, 9, 9, 24}, t);
    add({1025}, t);
    add({2, 5, 3, 20}, t, true);
    add({8, 28, 28, 48}, t, false, true);
  }
  return list;
}
}  // namespace

const OpDef& add_def() {
  static const OpDef def{
      .name = "add",
      .summary = "sum of two tensors of one shape (residual connection)",
      .infer =
          [](const Attrs&, std::span<const TensorSpec> in) {
            GM_CHECK(in[0].shape == in[1].shape && in[0].dtype == in[1].dtype,
                     "add: " + in[0].str() + " and " + in[1].str() + " differ");
            check_float("add", "x", in[0]);
            return Specs{in[0]};
          },
      .cost =
          [](Pass pass, const Attrs&, std::span<const TensorSpec> in) {
            // Backward: dy is copied once, and is the other gradient in place.
            const double x = double(in[0].bytes()), n = double(in[0].shape.numel());
            return pass == Pass::forward ? Cost{3 * x, n} : Cost{2 * x, 0};
          },
      .backward_reads = [](const Attrs&) { return BackwardReads{}; },
      .cases = cases,
      .differentiable = {0, 1},
      .forward_inplace = 0,
      .backward_inplace = {0},
  };
  return def;
}

}  // namespace gm
