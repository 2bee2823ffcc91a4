#include "kernels/global_pool/global_pool.h"

#include "kernels/common/channel_tiles.h"
#include "kernels/common/op.h"
#include "kernels/common/op_checks.h"

namespace gm {

namespace {

Specs infer(const Attrs& attrs, std::span<const TensorSpec> in) {
  GM_CHECK(in[0].shape.rank == 4, "global_pool: x must be (N, H, W, C), got " + in[0].str());
  check_float("global_pool", "x", in[0]);
  const int kind = attrs.geti("kind", 0);
  if (kind != 0 && kind != 1) fail("global_pool: unknown kind " + std::to_string(kind));
  return {{{in[0].shape[0], in[0].shape[3]}, DType::f32}};
}
Specs saved(const Attrs& attrs, std::span<const TensorSpec> in) {
  if (pool_kind(attrs) == PoolKind::average) return {};
  return {{{in[0].shape[0], in[0].shape[3]}, DType::i32}};
}
size_t workspace(Backend backend, Pass pass, const Attrs& attrs, std::span<const TensorSpec> in) {
  if (pass == Pass::backward || backend == Backend::cpu) return 0;
  return channel_tiles_workspace(in[0], pool_kind(attrs) == PoolKind::maximum ? 2 : 1);
}

std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  auto add = [&](int kind, Shape s, DType t, Fill fill = Fill::normal, bool large = false) {
    // The two largest values of a channel may be closer than the step of a finite difference. In the first
    // small case they are not, and it stays to check the rule.
    const bool smooth = kind == 0 || s == Shape{2, 3, 5, 7};
    list.push_back({.attrs = {{"kind", kind}},
                    .in = {{{s, t}, fill}},
                    .exact = fill == Fill::integers,
                    .smooth = smooth,
                    .large = large});
  };
  for (DType t : {DType::f32, DType::bf16})
    for (int kind : {0, 1}) {
      add(kind, {1, 1, 1, 1}, t);
      add(kind, {2, 3, 5, 7}, t);
      add(kind, {3, 7, 7, 24}, t);
      add(kind, {1, 9, 10, 20}, t);
      add(kind, {1, 13, 17, 136}, t);  // several slices and chunks
      add(kind, {2, 33, 31, 1}, t);    // all threads along the pixels
      add(kind, {1, 7, 9, 256}, t);    // eight pixels a thread: one more than it loads at once
      add(kind, {8, 7, 7, 1280}, t, Fill::normal, true);
      add(kind, {4, 56, 56, 96}, t, Fill::normal, true);
    }
  // 1 / (H W) is a power of two: averages of integers are exact, and gradients too while they fit the type.
  // The maximum has many ties.
  add(0, {2, 8, 16, 20}, DType::f32, Fill::integers);
  add(0, {3, 2, 4, 20}, DType::bf16, Fill::integers);
  for (DType t : {DType::f32, DType::bf16}) add(1, {2, 8, 16, 20}, t, Fill::integers);
  return list;
}

}  // namespace

const OpDef& global_pool_def() {
  static const OpDef def{
      .name = "global_pool",
      .summary = "average or maximum over the pixels of each channel",
      .infer = infer,
      .saved = saved,
      .workspace = workspace,
      .cost =
          [](Pass, const Attrs& attrs, std::span<const TensorSpec> in) {
            double bytes = double(in[0].bytes() + infer(attrs, in)[0].bytes());
            for (const TensorSpec& s : saved(attrs, in)) bytes += double(s.bytes());
            return Cost{bytes, double(in[0].shape.numel())};
          },
      .backward_reads = [](const Attrs&) { return BackwardReads{}; },
      .cases = cases,
      .differentiable = {0},
  };
  return def;
}

}  // namespace gm
