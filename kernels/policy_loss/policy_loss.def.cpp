#include "kernels/policy_loss/policy_loss.h"

#include "kernels/common/op.h"

namespace gm {

namespace {
Specs infer(const Attrs& attrs, std::span<const TensorSpec> in) {
  const TensorSpec &z = in[0], &action = in[1], &advantage = in[2];
  GM_CHECK(z.shape.rank == 2 && z.dtype == DType::f32,
           "policy_loss: logits must be f32 (N, C), got " + z.str());
  const Shape row{z.shape[0]};
  GM_CHECK(action.shape == row && action.dtype == DType::i32 && advantage.shape == row &&
               advantage.dtype == DType::f32,
           "policy_loss: logits " + z.str() + " need one i32 action and one f32 advantage each, got " +
               action.str() + " and " + advantage.str());
  const PolicyShape s = policy_shape(attrs);
  GM_CHECK(s.temperature > 0 && s.constant >= 0,
           "policy_loss: temperature must be positive, constant not negative");
  return {{row, DType::f32}};
}

std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  auto add = [&](int64_t n, int64_t c, double temperature, double constant, double entropy,
                 bool large = false) {
    list.push_back(
        {.attrs = {{"temperature", temperature}, {"constant", constant}, {"entropy_weight", entropy}},
         .in = {{{{n, c}, DType::f32}}, {{{n}, DType::i32}, Fill::labels}, {{{n}, DType::f32}}},
         .large = large});
  };
  add(1, 2, 5, 2.5, 1e-4);
  add(4, 3, 1, 0, 0);
  add(20, 4, 5, 2.5, 0.5);
  add(7, 9, 1, 1.5, 0.1);
  add(33, 12, 2, 0, 1);
  add(130, 5, 5, 2.5, 0.01);
  add(1024, 4, 5, 2.5, 1e-4, true);
  return list;
}
}  // namespace

const OpDef& policy_loss_def() {
  static const OpDef def{
      .name = "policy_loss",
      .summary = "REINFORCE with entropy bonus for one decision",
      .infer = infer,
      .saved =
          [](const Attrs&, std::span<const TensorSpec> in) {
            return Specs{in[0], in[0]};
          },
      .cost =
          [](Pass pass, const Attrs&, std::span<const TensorSpec> in) {
            const double z = double(in[0].bytes()), n = double(in[0].shape.numel());
            return pass == Pass::forward ? Cost{3 * z + double(3 * in[1].bytes()), 8 * n}
                                         : Cost{3 * z + double(3 * in[1].bytes()), 7 * n};
          },
      .backward_reads =
          [](const Attrs&) {
            return BackwardReads{.in = {1, 2}, .out = {}};
          },
      .cases = cases,
      .differentiable = {0},
  };
  return def;
}

}  // namespace gm
