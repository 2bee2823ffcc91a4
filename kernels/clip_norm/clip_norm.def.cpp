#include "kernels/clip_norm/clip_norm.h"

#include "kernels/common/op.h"
#include "kernels/common/op_checks.h"
#include "kernels/common/squares.h"

namespace gm {

namespace {

Specs infer(const Attrs& attrs, std::span<const TensorSpec> in) {
  GM_CHECK(in[0].dtype == DType::f32, "clip_norm: gradients are f32, got " + in[0].str());
  GM_CHECK(attrs.get("limit") > 0,
           "clip_norm: the limit must be positive, not " + number_text(attrs.get("limit")));
  return {{{1}, DType::f32}};
}

std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  auto add = [&](int64_t count, double limit, bool large = false) {
    list.push_back(
        {.attrs = {{"limit", limit}}, .in = {{{{count}, DType::f32}, Fill::absent}}, .large = large});
  };
  add(1, 0.1);
  add(1, 1e6);      // below the limit: nothing changes
  add(1027, 1);     // a tail
  add(8192, 2.5);   // one slice exactly
  add(20001, 1e3);  // three slices, below
  add(20001, 3);
  add(1 << 20, 1, true);
  return list;
}

}  // namespace

const OpDef& clip_norm_def() {
  static const OpDef def{
      .name = "clip_norm",
      .summary = "gradient clipping by the global norm",
      .infer = infer,
      .state = [](const Attrs&, std::span<const TensorSpec> in) { return Specs(1, in[0]); },
      .workspace =
          [](Backend, Pass pass, const Attrs&, std::span<const TensorSpec> in) {
            return pass == Pass::forward
                       ? static_cast<size_t>(square_slices(in[0].shape.numel()).count) * sizeof(float)
                       : size_t{0};
          },
      .cost =
          [](Pass, const Attrs&, std::span<const TensorSpec> in) {
            const double n = double(in[0].shape.numel());
            return Cost{12 * n, 3 * n};
          },
      .cases = cases,
      .optional = {0},
  };
  return def;
}

}  // namespace gm
