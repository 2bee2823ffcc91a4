#include "kernels/lstm_cell/lstm_cell.h"
#include "kernels/common/op.h"

namespace gm {

namespace {
Specs infer(const Attrs&, std::span<const TensorSpec> in) {
  const Shape &gates = in[0].shape, &c = in[1].shape;
  GM_CHECK(
      gates.rank == 2 && c.rank == 2 && gates[0] == c[0] && gates[1] == 4 * c[1] &&
          in[0].dtype == DType::f32 && in[1].dtype == DType::f32,
      "lstm_cell: gates must be f32 (N, 4 H) and c f32 (N, H); gates " + in[0].str() + ", c " + in[1].str());
  return {in[1], in[1]};
}

std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  for (auto [n, h] : {std::pair<int64_t, int64_t>{1, 1}, {1, 100}, {3, 7}, {20, 64}, {33, 65}})
    list.push_back({.in = {{{{n, 4 * h}, DType::f32}}, {{{n, h}, DType::f32}}}});
  list.push_back({.in = {{{{256, 400}, DType::f32}}, {{{256, 100}, DType::f32}}}, .large = true});
  return list;
}
}  // namespace

const OpDef& lstm_cell_def() {
  static const OpDef def{
      .name = "lstm_cell",
      .summary = "gates and state of one LSTM step",
      .infer = infer,
      .cost =
          [](Pass pass, const Attrs&, std::span<const TensorSpec> in) {
            const double c = double(in[1].bytes()), n = double(in[1].shape.numel());
            return pass == Pass::forward ? Cost{7 * c, 9 * n} : Cost{13 * c, 30 * n};
          },
      .backward_reads =
          [](const Attrs&) {
            return BackwardReads{.in = {0, 1}, .out = {1}};
          },
      .cases = cases,
      .differentiable = {0, 1},
  };
  return def;
}

}  // namespace gm
