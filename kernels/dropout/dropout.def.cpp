#include "kernels/dropout/dropout.h"

#include "kernels/common/op.h"
#include "kernels/common/op_checks.h"

namespace gm {

namespace {
std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  auto add = [&](Shape s, DType t, double rate, int per_sample, int stream, bool large = false,
                 int shared = 0) {
    list.push_back(
        {.attrs = {{"rate", rate}, {"per_sample", per_sample}, {"shared", shared}, {"stream", stream}},
         .in = {{{s, t}}},
         .large = large});
  };
  for (DType t : {DType::f32, DType::bf16}) {
    add({1, 1, 1, 1}, t, 0.2, 0, 0);
    add({2, 3, 5, 7}, t, 0.4, 0, 3);
    add({3, 9, 9, 24}, t, 0.5, 0, 1);
    add({5, 10}, t, 0, 0, 2);
    add({7, 3, 3, 20}, t, 0.3, 1, 5);
    add({9, 2, 2, 8}, t, 0.2, 1, 40);
    add({4, 48}, t, 0.3, 0, 6, false, 1);
    add({3, 1030}, t, 0.3, 0, 6, false, 1);
    add({64, 1280}, t, 0.2, 0, 7, true);
    add({16, 14, 14, 128}, t, 0.1, 1, 9, true);
  }
  return list;
}
}  // namespace

const OpDef& dropout_def() {
  static const OpDef def{
      .name = "dropout",
      .summary = "dropout, or stochastic depth with one draw per sample",
      .infer =
          [](const Attrs& attrs, std::span<const TensorSpec> in) {
            const double rate = attrs.get("rate");
            GM_CHECK(rate >= 0 && rate < 1, "dropout: rate " + std::to_string(rate) + " is not in [0, 1)");
            GM_CHECK(!attrs.geti("shared", 0) || !attrs.geti("per_sample", 0),
                     "dropout: a draw per sample cannot be shared by all samples");
            check_float("dropout", "x", in[0]);
            return Specs{in[0]};
          },
      .cost =
          [](Pass, const Attrs& attrs, std::span<const TensorSpec> in) {
            // Philox: 10 rounds of about 10 integer operations for four draws.
            const double draw = attrs.geti("per_sample", 0) ? 0 : 25;
            return Cost{2 * double(in[0].bytes()), (1 + draw) * double(in[0].shape.numel())};
          },
      .backward_reads = [](const Attrs&) { return BackwardReads{}; },
      .cases = cases,
      .differentiable = {0},
      .forward_inplace = 0,
      .backward_inplace = {0},
  };
  return def;
}

}  // namespace gm
