#include "kernels/softmax_xent/softmax_xent.h"

#include "kernels/common/op.h"
#include "kernels/common/op_checks.h"

namespace gm {

namespace {

constexpr size_t kMaxBlocks = 1024;  // of the CUDA forward; each leaves three partial sums

Specs infer(const Attrs& attrs, std::span<const TensorSpec> in) {
  const TensorSpec &z = in[0], &t = in[1];
  GM_CHECK(z.shape.rank == 2, "softmax_xent: logits must be (N, C), got " + z.str());
  check_float("softmax_xent", "logits", z);
  const bool labels = t.dtype == DType::i32 && t.shape == Shape{z.shape[0]};
  GM_CHECK(labels || (t.dtype == DType::f32 && t.shape == z.shape),
           "softmax_xent: targets must be i32 (N) or f32 (N, C) of logits " + z.str() + ", got " + t.str());
  if (in.size() > 2 && in[2].shape.rank > 0)
    GM_CHECK(in[2].shape == Shape{z.shape[1]} && in[2].dtype == DType::f32,
             "softmax_xent: one f32 weight per class of " + z.str() + ", got " + in[2].str());
  const double smoothing = attrs.get("smoothing", 0);
  GM_CHECK(smoothing >= 0 && smoothing <= 1,
           "softmax_xent: smoothing " + std::to_string(smoothing) + " is not in [0, 1]");
  return {{{1}, DType::f32}, {{1}, DType::f32}};
}

Specs saved(const Attrs&, std::span<const TensorSpec> in) {
  return {{in[0].shape, DType::f32}, {{in[0].shape[0]}, DType::f32}, {{1}, DType::f32}};
}

std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  auto add = [&](int64_t n, int64_t c, DType t, bool soft, bool weights, double smoothing,
                 bool large = false) {
    OpCase k{.attrs = {{"smoothing", smoothing}}, .in = {{{{n, c}, t}}}, .large = large};
    k.in.push_back(soft ? CaseInput{{{n, c}, DType::f32}, Fill::rows}
                        : CaseInput{{{n}, DType::i32}, Fill::labels});
    k.in.push_back({{{c}, DType::f32}, weights ? Fill::positive : Fill::absent});
    list.push_back(k);
  };
  for (DType t : {DType::f32, DType::bf16}) {
    add(5, 7, t, false, false, 0);
    add(6, 10, t, true, true, 0.1);
    add(9, 5, t, false, true, 0.1);
    add(3, 33, t, true, false, 0);
    add(1, 1, t, false, false, 0);
    add(1, 20, t, false, false, 0.2);
    add(300, 40, t, false, true, 0);  // two blocks of the CUDA forward
    add(256, 10, t, false, false, 0.1, true);
    add(64, 1000, t, true, true, 0, true);
  }
  return list;
}

}  // namespace

const OpDef& softmax_xent_def() {
  static const OpDef def{
      .name = "softmax_xent",
      .summary = "softmax cross-entropy loss with the number of correct rows",
      .infer = infer,
      .saved = saved,
      .workspace =
          [](Backend backend, Pass pass, const Attrs&, std::span<const TensorSpec>) {
            return pass == Pass::forward && backend != Backend::cpu ? 3 * kMaxBlocks * sizeof(float)
                                                                    : size_t{0};
          },
      .cost =
          [](Pass pass, const Attrs&, std::span<const TensorSpec> in) {
            const double n = double(in[0].shape.numel());
            return Cost{double(in[0].bytes() + in[1].bytes()) + 4 * n, (pass == Pass::forward ? 6. : 3.) * n};
          },
      .backward_reads = [](const Attrs&) { return BackwardReads{.in = {1}, .out = {}}; },
      .cases = cases,
      .differentiable = {0},
      .optional = {2},
  };
  return def;
}

}  // namespace gm
