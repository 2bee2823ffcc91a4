#include "kernels/mix/mix.h"

#include "kernels/common/op.h"
#include "kernels/common/op_checks.h"

namespace gm {

namespace {

Specs infer(const Attrs& attrs, std::span<const TensorSpec> in) {
  const TensorSpec &x = in[0], &labels = in[1];
  GM_CHECK(x.shape.rank == 4, "mix: images must be (N, H, W, C), got " + x.str());
  check_float("mix", "images", x);
  const int64_t classes = attrs.geti("classes");
  GM_CHECK(classes > 0, "mix: classes must be positive, not " + std::to_string(classes));
  const bool hard = labels.dtype == DType::i32 && labels.shape == Shape{x.shape[0]};
  GM_CHECK(hard || (labels.dtype == DType::f32 && labels.shape == Shape{x.shape[0], classes}),
           "mix: labels must be i32 (N) or f32 (N, " + std::to_string(classes) + ") of " + x.str() +
               ", got " + labels.str());
  for (const char* key : {"mixup", "cutmix"}) {
    const double alpha = attrs.get(key, 0);
    GM_CHECK(alpha >= 0 && alpha <= 1,
             std::string("mix: ") + key + " must lie in [0, 1], not " + number_text(alpha));
  }
  return {x, {{x.shape[0], classes}, DType::f32}};
}

std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  auto add = [&](Shape s, DType t, double mixup, double cutmix, bool soft = false, bool large = false) {
    // Labels are drawn below the channels of the first input.
    const int64_t classes = s.channels() + 2;
    OpCase c{.attrs = {{"mixup", mixup}, {"cutmix", cutmix}, {"classes", classes}}, .large = large};
    c.in = {{{s, t}}};
    c.in.push_back(soft ? CaseInput{{{s[0], classes}, DType::f32}, Fill::rows}
                        : CaseInput{{{s[0]}, DType::i32}, Fill::labels});
    list.push_back(c);
  };
  for (DType t : {DType::f32, DType::bf16}) {
    add({1, 1, 1, 1}, t, 0.2, 0);
    add({4, 7, 5, 3}, t, 0.4, 0);
    add({5, 9, 12, 3}, t, 0, 1);  // the middle image is mixed with itself
    add({6, 16, 16, 3}, t, 0.2, 0.5);
    add({3, 6, 6, 4}, t, 0, 0);
    add({5, 6, 7, 3}, t, 0.2, 0.5, true);
    add({64, 96, 96, 3}, t, 0.2, 1, false, true);
  }
  return list;
}

}  // namespace

const OpDef& mix_def() {
  static const OpDef def{
      .name = "mix",
      .summary = "mixup and CutMix of a batch, with its soft targets",
      .infer = infer,
      .cost =
          [](Pass, const Attrs&, std::span<const TensorSpec> in) {
            return Cost{3. * double(in[0].bytes()), 3. * double(in[0].shape.numel())};
          },
      .cases = cases,
  };
  return def;
}

}  // namespace gm
