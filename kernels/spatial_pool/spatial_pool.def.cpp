#include "kernels/spatial_pool/spatial_pool.h"

#include "kernels/common/op.h"
#include "kernels/common/op_checks.h"

namespace gm {

namespace {

std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  auto add = [&](Shape s, DType t, int max_first = 0, Fill fill = Fill::normal, bool large = false) {
    // In larger cases the two largest channels of a pixel may be closer than the step of a finite difference.
    list.push_back({.attrs = {{"max_first", max_first}},
                    .in = {{{s, t}, fill}},
                    .exact = fill == Fill::integers,
                    .smooth = s.numel() <= 210,
                    .large = large});
  };
  for (DType t : {DType::f32, DType::bf16}) {
    add({1, 1, 1, 1}, t);
    add({2, 3, 5, 7}, t, 1);
    add({1, 5, 2, 20}, t);
    add({3, 7, 7, 24}, t, 1);
    add({1, 3, 3, 264}, t);   // one vector more than a warp takes at once
    add({1, 2, 2, 1288}, t);  // one vector more than a warp takes in five rounds, whose loads go together
    add({8, 7, 7, 1280}, t, 0, Fill::normal, true);
    // 1 / C is a power of two, so averages of integers are exact; the maximum has many ties.
    for (int max_first : {0, 1}) add({2, 5, 3, 16}, t, max_first, Fill::integers);
  }
  return list;
}

}  // namespace

const OpDef& spatial_pool_def() {
  static const OpDef def{
      .name = "spatial_pool",
      .summary = "average and maximum over the channels of each pixel (spatial attention)",
      .infer =
          [](const Attrs&, std::span<const TensorSpec> in) {
            GM_CHECK(in[0].shape.rank == 4, "spatial_pool: x must be (N, H, W, C), got " + in[0].str());
            check_float("spatial_pool", "x", in[0]);
            return Specs{channel_pool_spec(in[0])};
          },
      .saved = [](const Attrs&, std::span<const TensorSpec> in) { return Specs{channel_argmax_spec(in[0])}; },
      .cost =
          [](Pass, const Attrs&, std::span<const TensorSpec> in) {
            return Cost{
                double(in[0].bytes() + channel_pool_spec(in[0]).bytes() + channel_argmax_spec(in[0]).bytes()),
                2. * double(in[0].shape.numel())};
          },
      .backward_reads = [](const Attrs&) { return BackwardReads{}; },
      .cases = cases,
      .differentiable = {0},
  };
  return def;
}

}  // namespace gm
