#include "kernels/adam/adam.h"

#include "kernels/common/op.h"

namespace gm {

namespace {

Specs infer(const Attrs& attrs, std::span<const TensorSpec> in) {
  GM_CHECK(in[0].dtype == DType::f32, "adam: gradients are f32, got " + in[0].str());
  GM_CHECK((in[1].shape == Shape{8}) && in[1].dtype == DType::f32,
           "adam: eight f32 hyper-parameters, got " + in[1].str());
  if (in.size() > 2 && in[2].shape.rank > 0)
    GM_CHECK(in[2].dtype == DType::u8 && in[2].shape == in[0].shape,
             "adam: decay mask " + in[2].str() + " does not fit gradients " + in[0].str());
  if (!attrs.geti("half_copy", 0)) return {};
  return {{in[0].shape, DType::bf16}};
}

std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  auto add = [&](int64_t count, int hat, int decoupled, int half, bool mask, bool large = false) {
    OpCase c{.attrs = {{"epsilon_hat", hat}, {"decoupled", decoupled}, {"half_copy", half}}, .large = large};
    // Fill::rows: eight values in (0, 1). Betas above 1 would make v negative and its root NaN.
    c.in = {{{{count}, DType::f32}},
            {{{8}, DType::f32}, Fill::rows},
            {{{count}, DType::u8}, mask ? Fill::pixels : Fill::absent}};
    if (half) c.tolerance = 8e-3, c.why = "the copy is rounded to bf16";
    list.push_back(c);
  };
  for (int hat : {0, 1})
    for (int decoupled : {0, 1})
      for (int half : {0, 1}) {
        add(1, hat, decoupled, half, false);
        add(1027, hat, decoupled, half, true);  // pixels: about one in 256 is 0, without decay
        add(4096, hat, decoupled, half, false);
      }
  add(7, 0, 1, 1, true);
  add(1 << 20, 0, 1, 1, true, true);
  return list;
}
}  // namespace

const OpDef& adam_def() {
  static const OpDef def{
      .name = "adam",
      .summary = "Adam / AdamW step over the flat parameter buffer",
      .infer = infer,
      .state = [](const Attrs&, std::span<const TensorSpec> in) { return Specs(3, in[0]); },
      .cost =
          [](Pass, const Attrs& attrs, std::span<const TensorSpec> in) {
            const double n = double(in[0].shape.numel());
            return Cost{n * (28 + (attrs.geti("half_copy", 0) ? 2 : 0) + (in.size() > 2 ? 1 : 0)), 18 * n};
          },
      .cases = cases,
      .optional = {2},
  };
  return def;
}

}  // namespace gm
