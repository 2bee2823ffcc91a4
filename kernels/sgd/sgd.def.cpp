#include "kernels/sgd/sgd.h"

#include "kernels/common/op.h"

namespace gm {

namespace {

Specs infer(const Attrs& attrs, std::span<const TensorSpec> in) {
  GM_CHECK(in[0].dtype == DType::f32, "sgd: gradients are f32, got " + in[0].str());
  GM_CHECK((in[1].shape == Shape{8}) && in[1].dtype == DType::f32,
           "sgd: eight f32 hyper-parameters, got " + in[1].str());
  if (in.size() > 2 && in[2].shape.rank > 0)
    GM_CHECK(in[2].dtype == DType::u8 && in[2].shape == in[0].shape,
             "sgd: decay mask " + in[2].str() + " does not fit gradients " + in[0].str());
  if (!attrs.geti("half_copy", 0)) return {};
  return {{in[0].shape, DType::bf16}};
}

std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  auto add = [&](int64_t count, int nesterov, int half, bool mask, Fill fill = Fill::normal,
                 bool large = false) {
    const bool exact = fill == Fill::integers;
    OpCase c{.attrs = {{"nesterov", nesterov}, {"half_copy", half}}, .exact = exact, .large = large};
    c.in = {{{{count}, DType::f32}, fill},
            {{{8}, DType::f32}, exact ? fill : Fill::positive},
            {{{count}, DType::u8}, mask ? Fill::pixels : Fill::absent}};  // about one in 256 does not decay
    if (half && !exact) c.tolerance = 8e-3, c.why = "the copy is rounded to bf16";
    list.push_back(c);
  };
  for (int nesterov : {0, 1})
    for (int half : {0, 1}) {
      add(1, nesterov, half, false);
      add(1027, nesterov, half, true);
      add(4096, nesterov, half, false);
      add(515, nesterov, half, true, Fill::integers);
    }
  add(1 << 20, 1, 1, true, Fill::normal, true);
  return list;
}
}  // namespace

const OpDef& sgd_def() {
  static const OpDef def{
      .name = "sgd",
      .summary = "SGD step with momentum over the flat parameter buffer",
      .infer = infer,
      .state = [](const Attrs&, std::span<const TensorSpec> in) { return Specs(2, in[0]); },
      .cost =
          [](Pass, const Attrs& attrs, std::span<const TensorSpec> in) {
            const double n = double(in[0].shape.numel());
            return Cost{n * (20 + (attrs.geti("half_copy", 0) ? 2 : 0) + (in.size() > 2 ? 1 : 0)), 7 * n};
          },
      .cases = cases,
      .optional = {2},
  };
  return def;
}

}  // namespace gm
