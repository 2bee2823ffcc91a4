#include "kernels/channel_scale/channel_scale.h"

#include "kernels/common/channel_tiles.h"
#include "kernels/common/op.h"
#include "kernels/common/op_checks.h"

namespace gm {

namespace {

Specs infer(const Attrs&, std::span<const TensorSpec> in) {
  const TensorSpec &x = in[0], &s = in[1];
  GM_CHECK(x.shape.rank == 4, "channel_scale: x must be (N, H, W, C), got " + x.str());
  check_float("channel_scale", "x", x);
  GM_CHECK((s.shape == Shape{x.shape[0], x.shape[3]}) && s.dtype == DType::f32,
           "channel_scale: s must be f32 (N, C) of x " + x.str() + ", got " + s.str());
  return {x};
}

std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  auto add = [&](Shape x, DType t, Fill fill = Fill::normal, bool large = false) {
    list.push_back({.in = {{{x, t}, fill}, {{{x[0], x[3]}, DType::f32}, fill}},
                    .exact = fill == Fill::integers,
                    .large = large});
  };
  for (DType t : {DType::f32, DType::bf16}) {
    add({1, 1, 1, 1}, t);
    add({2, 3, 5, 7}, t);
    add({3, 7, 7, 24}, t);
    add({1, 9, 10, 20}, t);
    add({1, 13, 17, 136}, t);  // several slices and chunks
    add({2, 33, 31, 1}, t);    // all threads along the pixels
    add({8, 14, 14, 480}, t, Fill::normal, true);
    add({4, 28, 28, 240}, t, Fill::normal, true);
  }
  add({2, 6, 5, 20}, DType::f32, Fill::integers);
  return list;
}

}  // namespace

const OpDef& channel_scale_def() {
  static const OpDef def{
      .name = "channel_scale",
      .summary = "x * s per image and channel (squeeze-excite)",
      .infer = infer,
      .workspace =
          [](Backend backend, Pass pass, const Attrs&, std::span<const TensorSpec> in) {
            if (pass == Pass::forward || backend == Backend::cpu) return size_t{0};
            return channel_tiles_workspace(in[0], 1);
          },
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
