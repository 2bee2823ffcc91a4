#include "kernels/channel_scale_pool/channel_scale_pool.h"

#include "kernels/common/channel_tiles.h"
#include "kernels/common/op.h"
#include "kernels/common/op_checks.h"

namespace gm {

namespace {

Specs infer(const Attrs&, std::span<const TensorSpec> in) {
  const TensorSpec &x = in[0], &s = in[1];
  GM_CHECK(x.shape.rank == 4, "channel_scale_pool: x must be (N, H, W, C), got " + x.str());
  check_float("channel_scale_pool", "x", x);
  GM_CHECK((s.shape == Shape{x.shape[0], x.shape[3]}) && s.dtype == DType::f32,
           "channel_scale_pool: s must be f32 (N, C) of x " + x.str() + ", got " + s.str());
  return {x, channel_pool_spec(x)};
}

std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  auto add = [&](Shape x, DType t, int max_first = 0, Fill fill = Fill::normal, bool large = false) {
    // In larger cases the two largest channels of a pixel may be closer than the step of a finite difference.
    list.push_back({.attrs = {{"max_first", max_first}},
                    .in = {{{x, t}, fill}, {{{x[0], x[3]}, DType::f32}, fill}},
                    .exact = fill == Fill::integers,
                    .smooth = x.numel() <= 210,
                    .large = large});
  };
  for (DType t : {DType::f32, DType::bf16}) {
    add({1, 1, 1, 1}, t);
    add({2, 3, 5, 7}, t, 1);
    add({1, 5, 2, 20}, t);
    add({3, 7, 7, 24}, t, 1);
    add({1, 3, 3, 264}, t);    // one vector more than a warp takes at once
    add({1, 2, 2, 1288}, t);   // one more than it takes in five rounds, whose loads go together
    add({1, 13, 17, 136}, t);  // several slices and chunks in backward
    add({2, 33, 31, 1}, t);    // all threads along the pixels in backward
    add({8, 7, 7, 1280}, t, 0, Fill::normal, true);
  }
  // 1 / C is a power of two, so averages of integers are exact; the maximum has many ties.
  for (int max_first : {0, 1}) add({2, 6, 5, 16}, DType::f32, max_first, Fill::integers);
  return list;
}

}  // namespace

const OpDef& channel_scale_pool_def() {
  static const OpDef def{
      .name = "channel_scale_pool",
      .summary = "x * s per image and channel, then average and maximum over channels (CBAM)",
      .infer = infer,
      .saved = [](const Attrs&, std::span<const TensorSpec> in) { return Specs{channel_argmax_spec(in[0])}; },
      .workspace =
          [](Backend backend, Pass pass, const Attrs&, std::span<const TensorSpec> in) {
            if (pass == Pass::forward || backend == Backend::cpu) return size_t{0};
            return channel_tiles_workspace(in[0], 1);
          },
      .cost =
          [](Pass pass, const Attrs&, std::span<const TensorSpec> in) {
            const bool forward = pass == Pass::forward;
            return Cost{(forward ? 2. : 3.) * double(in[0].bytes()) +
                            (forward ? 1. : 2.) * double(in[1].bytes()) +
                            double(channel_pool_spec(in[0]).bytes() + channel_argmax_spec(in[0]).bytes()),
                        (forward ? 3. : 4.) * double(in[0].shape.numel())};
          },
      .backward_reads =
          [](const Attrs&) {
            return BackwardReads{.in = {0, 1}, .out = {}};
          },
      .cases = cases,
      .composition =
          [](const Attrs& attrs, std::span<const TensorSpec>) {
            return std::vector<CompositionStep>{
                {.op = "channel_scale", .attrs = {}, .in = {"in0", "in1"}, .out = {"out0"}, .state = {}},
                {.op = "spatial_pool", .attrs = attrs, .in = {"out0"}, .out = {"out1"}, .state = {}}};
          },
      .differentiable = {0, 1},
      .forward_inplace = 0,
      .backward_inplace = {0},
  };
  return def;
}

}  // namespace gm
