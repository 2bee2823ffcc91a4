#include "kernels/global_avg_max_pool/global_avg_max_pool.h"

#include "kernels/common/channel_tiles.h"
#include "kernels/common/op.h"
#include "kernels/common/op_checks.h"
#include "kernels/global_pool/global_pool.h"

namespace gm {

namespace {

Specs infer(const Attrs&, std::span<const TensorSpec> in) {
  GM_CHECK(in[0].shape.rank == 4, "global_avg_max_pool: x must be (N, H, W, C), got " + in[0].str());
  check_float("global_avg_max_pool", "x", in[0]);
  const TensorSpec pooled{{in[0].shape[0], in[0].shape[3]}, DType::f32};
  return {pooled, pooled};
}

std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  auto add = [&](Shape s, DType t, Fill fill = Fill::normal, bool large = false) {
    // The two largest values of a channel may be closer than the step of a finite difference. In the first
    // small case they are not, and it stays to check the rule.
    list.push_back({.in = {{{s, t}, fill}},
                    .exact = fill == Fill::integers,
                    .smooth = s == Shape{2, 3, 5, 7},
                    .large = large});
  };
  for (DType t : {DType::f32, DType::bf16}) {
    add({1, 1, 1, 1}, t);
    add({2, 3, 5, 7}, t);
    add({3, 7, 7, 24}, t);
    add({1, 9, 10, 20}, t);
    add({1, 13, 17, 136}, t);  // several slices and chunks
    add({2, 33, 31, 1}, t);    // all threads along the pixels
    add({1, 7, 9, 256}, t);    // eight pixels a thread: one more than it loads at once
    add({8, 7, 7, 1280}, t, Fill::normal, true);
    add({2, 28, 28, 256}, t, Fill::normal, true);
  }
  // 1 / (H W) is a power of two: averages of integers are exact, and gradients while they fit the type. The
  // maximum has many ties.
  add({2, 8, 16, 20}, DType::f32, Fill::integers);
  add({3, 2, 4, 20}, DType::bf16, Fill::integers);
  return list;
}

}  // namespace

const OpDef& global_avg_max_pool_def() {
  static const OpDef def{
      .name = "global_avg_max_pool",
      .summary = "average and maximum over the pixels of each channel in one pass",
      .infer = infer,
      .saved =
          [](const Attrs&, std::span<const TensorSpec> in) {
            return Specs{{{in[0].shape[0], in[0].shape[3]}, DType::i32}};
          },
      .workspace =
          [](Backend backend, Pass pass, const Attrs&, std::span<const TensorSpec> in) {
            if (pass == Pass::backward || backend == Backend::cpu) return size_t{0};
            return channel_tiles_workspace(in[0], 3);
          },
      .cost =
          [](Pass, const Attrs& attrs, std::span<const TensorSpec> in) {
            return Cost{double(in[0].bytes()) + 3. * double(infer(attrs, in)[0].bytes()),
                        2. * double(in[0].shape.numel())};
          },
      .backward_reads = [](const Attrs&) { return BackwardReads{}; },
      .cases = cases,
      .composition =
          [](const Attrs&, std::span<const TensorSpec>) {
            return std::vector<CompositionStep>{{.op = "global_pool",
                                                 .attrs = {{"kind", PoolKind::average}},
                                                 .in = {"in0"},
                                                 .out = {"out0"},
                                                 .state = {}},
                                                {.op = "global_pool",
                                                 .attrs = {{"kind", PoolKind::maximum}},
                                                 .in = {"in0"},
                                                 .out = {"out1"},
                                                 .state = {}}};
          },
      .differentiable = {0},
  };
  return def;
}

}  // namespace gm
