#include "kernels/activation/activation.h"

#include "kernels/common/op.h"
#include "kernels/common/op_checks.h"

namespace gm {

void check_act(const std::string& op, const Attrs& attrs) {
  const int act = attrs.geti("act", 0);
  if (act < 0 || act > 4) fail(op + ": unknown activation " + std::to_string(act));
}

namespace {
std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  for (DType t : {DType::f32, DType::bf16})
    for (int act = 1; act <= 4; ++act) {
      const bool kinked = act == 2 || act == 3;
      for (Shape s : {Shape{1, 1, 1, 1}, Shape{2, 3, 5, 7}, Shape{3, 9, 9, 24}})
        list.push_back({.attrs = {{"act", act}}, .in = {{{s, t}}}, .smooth = !kinked});
    }
  list.push_back({.attrs = {{"act", Act::silu}}, .in = {{{{8, 56, 56, 96}, DType::f32}}}, .large = true});
  return list;
}
}  // namespace

const OpDef& activation_def() {
  static const OpDef def{
      .name = "activation",
      .summary = "elementwise SiLU, ReLU, ReLU6 or sigmoid",
      .infer =
          [](const Attrs& attrs, std::span<const TensorSpec> in) {
            check_act("activation", attrs);
            check_float("activation", "x", in[0]);
            return Specs{in[0]};
          },
      .cost =
          [](Pass pass, const Attrs&, std::span<const TensorSpec> in) {
            const double passes = pass == Pass::forward ? 2 : 3;
            return Cost{passes * double(in[0].bytes()),
                        (pass == Pass::forward ? 3. : 6.) * double(in[0].shape.numel())};
          },
      .backward_reads = [](const Attrs&) { return BackwardReads{.in = {0}, .out = {}}; },
      .cases = cases,
      .differentiable = {0},
      .forward_inplace = 0,
      .backward_inplace = {0},
  };
  return def;
}

}  // namespace gm
