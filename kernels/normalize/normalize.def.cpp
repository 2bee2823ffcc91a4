#include "kernels/normalize/normalize.h"

#include "kernels/common/op.h"
#include "kernels/common/op_checks.h"

namespace gm {

namespace {

Specs infer(const Attrs& attrs, std::span<const TensorSpec> in) {
  const TensorSpec& x = in[0];
  GM_CHECK(x.dtype == DType::f32 || x.dtype == DType::u8, "normalize: pixels are f32 or u8, not " + x.str());
  GM_CHECK(x.shape.rank > 0 && x.shape.channels() <= kMaxPixelChannels,
           "normalize: 1 to 4 channels, got " + x.str());
  for (int c = 0; c < x.shape.channels(); ++c) check_positive("normalize", attrs, "std" + std::to_string(c));
  return {{x.shape, attrs.geti("bf16", 0) ? DType::bf16 : DType::f32}};
}

std::vector<OpCase> cases() {
  const Attrs keras{{"mean0", 128}, {"mean1", 128}, {"mean2", 128},
                    {"std0", 128},  {"std1", 128},  {"std2", 128}};
  const Attrs imagenet{{"mean0", 123.675}, {"mean1", 116.28}, {"mean2", 103.53},
                       {"std0", 58.395},   {"std1", 57.12},   {"std2", 57.375}};
  const Attrs four{{"mean0", 1}, {"mean1", 2}, {"mean2", 3}, {"mean3", 4},
                   {"std0", 2},  {"std1", 4},  {"std2", 8},  {"std3", 16}};
  std::vector<OpCase> list;
  for (DType t : {DType::u8, DType::f32})
    for (int half : {0, 1}) {
      auto add = [&](Attrs a, Shape s, bool large = false) {
        list.push_back({.attrs = a.set("bf16", half), .in = {{{s, t}, Fill::pixels}}, .large = large});
        // The harness knows bf16 by the inputs; here only the output is.
        if (half) list.back().tolerance = 8e-3, list.back().why = "the output is rounded to bf16";
      };
      add(imagenet, {1, 1, 1, 3});
      add(imagenet, {2, 5, 7, 3});
      add(imagenet, {3, 16, 11, 3});
      add({{"mean0", 100}, {"std0", 50}}, {2, 9, 5, 1});
      add({{"mean0", 100}, {"std0", 50}, {"mean1", 90}, {"std1", 40}}, {1, 7, 3, 2});
      add(four, {2, 5, 9, 4});
      add(imagenet, {8, 96, 96, 3}, true);
    }
  for (DType t : {DType::u8, DType::f32})
    list.push_back({.attrs = keras,
                    .in = {{{{2, 5, 7, 3}, t}, t == DType::u8 ? Fill::pixels : Fill::integers}},
                    .exact = true});
  return list;
}

}  // namespace

const OpDef& normalize_def() {
  static const OpDef def{
      .name = "normalize",
      .summary = "input scaling (x - mean) / std per channel",
      .infer = infer,
      .cost =
          [](Pass, const Attrs& attrs, std::span<const TensorSpec> in) {
            return Cost{double(in[0].bytes() + infer(attrs, in)[0].bytes()), 2 * double(in[0].shape.numel())};
          },
      .backward_reads = [](const Attrs&) { return BackwardReads{}; },
      .cases = cases,
      .differentiable = {0},
  };
  return def;
}

}  // namespace gm
