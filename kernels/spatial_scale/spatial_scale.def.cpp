#include "kernels/spatial_scale/spatial_scale.h"

#include "kernels/common/op.h"
#include "kernels/common/op_checks.h"

namespace gm {

namespace {

Specs infer(const Attrs&, std::span<const TensorSpec> in) {
  const TensorSpec &x = in[0], &m = in[1];
  GM_CHECK(x.shape.rank == 4, "spatial_scale: x must be (N, H, W, C), got " + x.str());
  check_float("spatial_scale", "x", x);
  GM_CHECK((m.shape == Shape{x.shape[0], x.shape[1], x.shape[2], 1}) && m.dtype == DType::f32,
           "spatial_scale: m must be f32 (N, H, W, 1) of x " + x.str() + ", got " + m.str());
  return {x};
}

std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  auto add = [&](Shape x, DType t, Fill fill = Fill::normal, bool large = false) {
    list.push_back({.in = {{{x, t}, fill}, {{{x[0], x[1], x[2], 1}, DType::f32}, fill}},
                    .exact = fill == Fill::integers,
                    .large = large});
  };
  for (DType t : {DType::f32, DType::bf16}) {
    add({1, 1, 1, 1}, t);
    add({2, 3, 5, 7}, t);
    add({1, 5, 2, 20}, t);
    add({3, 7, 7, 24}, t);
    add({1, 3, 3, 264}, t);   // one vector more than a warp takes at once
    add({1, 2, 2, 1288}, t);  // one vector more than a warp takes in five rounds, whose loads go together
    add({8, 7, 7, 1280}, t, Fill::normal, true);
  }
  add({2, 6, 5, 20}, DType::f32, Fill::integers);
  return list;
}

}  // namespace

const OpDef& spatial_scale_def() {
  static const OpDef def{
      .name = "spatial_scale",
      .summary = "x * m per image and pixel (spatial attention)",
      .infer = infer,
      .cost =
          [](Pass pass, const Attrs&, std::span<const TensorSpec> in) {
            const bool forward = pass == Pass::forward;
            return Cost{
                (forward ? 2. : 3.) * double(in[0].bytes()) + (forward ? 1. : 2.) * double(in[1].bytes()),
                (forward ? 1. : 3.) * double(in[0].shape.numel())};
          },
      .backward_reads =
          [](const Attrs&) {
            return BackwardReads{.in = {0, 1}, .out = {}};
          },
      .cases = cases,
      .differentiable = {0, 1},
      .forward_inplace = 0,
      .backward_inplace = {0},
  };
  return def;
}

}  // namespace gm
