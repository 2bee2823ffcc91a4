#include "kernels/moving_average/moving_average.h"

#include "kernels/common/op.h"

namespace gm {

namespace {

Specs infer(const Attrs&, std::span<const TensorSpec> in) {
  GM_CHECK(in[0].dtype == DType::f32, "moving_average: parameters are f32, got " + in[0].str());
  GM_CHECK((in[1].shape == Shape{1}) && in[1].dtype == DType::f32,
           "moving_average: decay is one number, got " + in[1].str());
  return {};
}

std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  auto add = [&](int64_t count, Fill fill = Fill::normal, bool large = false) {
    list.push_back({.in = {{{{count}, DType::f32}, fill},
                           {{{1}, DType::f32}, fill == Fill::integers ? fill : Fill::positive}},
                    .exact = fill == Fill::integers,
                    .large = large});
  };
  add(1);
  add(1027);
  add(4096);
  add(515, Fill::integers);
  add(1 << 20, Fill::normal, true);
  return list;
}

}  // namespace

const OpDef& moving_average_def() {
  static const OpDef def{
      .name = "moving_average",
      .summary = "exponential moving average of the flat parameter buffer",
      .infer = infer,
      .state = [](const Attrs&, std::span<const TensorSpec> in) { return Specs(1, in[0]); },
      .cost =
          [](Pass, const Attrs&, std::span<const TensorSpec> in) {
            const double n = double(in[0].shape.numel());
            return Cost{12 * n, 3 * n};
          },
      .cases = cases,
  };
  return def;
}

}  // namespace gm
