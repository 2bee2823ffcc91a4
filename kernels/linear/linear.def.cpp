#include "kernels/linear/linear.h"

#include "kernels/common/op.h"
#include "kernels/common/op_checks.h"

namespace gm {

LinearShape linear_shape(std::span<const TensorSpec> in) {
  const Shape &x = in[0].shape, &w = in[1].shape;
  if (x.rank != 2 || w.rank != 2 || x[1] != w[1] || in[0].dtype != in[1].dtype)
    fail("linear: x must be (N,In) and w (Out,In) of the same dtype; x " + in[0].str() + ", w " +
         in[1].str());
  return {x[0], x[1], w[0], in[0].dtype};
}

namespace {
OpCase make(DType t, int64_t n, int64_t in, int64_t out, bool bias, bool exact, bool large = false) {
  const Fill fill = exact ? Fill::integers : Fill::normal;
  OpCase c;
  c.in = {{{{n, in}, t}, fill}, {{{out, in}, t}, fill}, {{{out}, DType::f32}, bias ? fill : Fill::absent}};
  c.exact = exact;
  c.large = large;
  return c;
}
std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  for (DType t : {DType::f32, DType::bf16}) {
    for (bool exact : {true, false}) {
      if (exact && t == DType::bf16) continue;
      list.push_back(make(t, 1, 1, 1, false, exact));
      list.push_back(make(t, 1, 160, 5, true, exact));  // one galaxy through G0's head
      list.push_back(make(t, 3, 7, 20, true, exact));
      list.push_back(make(t, 65, 33, 17, false, exact));
      list.push_back(make(t, 130, 24, 100, true, exact));
      list.push_back(make(t, 16, 64, 64, true, exact));
    }
    list.push_back(make(t, 64, 1280, 10, true, false, true));
    list.push_back(make(t, 32, 1280, 256, true, false, true));  // SE and CBAM widths
  }
  return list;
}
}  // namespace

const OpDef& linear_def() {
  static const OpDef def{
      .name = "linear",
      .summary = "dense layer with optional bias",
      .infer =
          [](const Attrs&, std::span<const TensorSpec> in) {
            const LinearShape s = linear_shape(in);
            check_float("linear", "x", in[0]);
            check_optional_f32("linear", "bias", in, 2, {s.out});
            return Specs{{{s.n, s.out}, s.dtype}};
          },
      .workspace = [](Backend backend, Pass pass, const Attrs&, std::span<const TensorSpec> in) -> size_t {
        const LinearShape s = linear_shape(in);
        const bool backward = pass == Pass::backward;
        if (backend == Backend::cpu)
          return s.dtype == DType::f32 ? 0 : linear_wide_bytes(s.n * (backward ? s.out : s.in));
        return backward ? static_cast<size_t>(4 * linear_slices(s).count * s.out * (s.in + 1)) : 0;
      },
      .cost =
          [](Pass pass, const Attrs&, std::span<const TensorSpec> in) {
            const LinearShape s = linear_shape(in);
            const double e = double(dtype_bytes(s.dtype)), x = e * double(s.n * s.in),
                         y = e * double(s.n * s.out), w = double(s.in * s.out), macs = double(s.n) * w;
            if (pass == Pass::forward) return Cost{x + y + e * w, 2 * macs};
            return Cost{2 * x + y + (e + 4) * w, 4 * macs};
          },
      .backward_reads =
          [](const Attrs&) {
            return BackwardReads{.in = {0, 1}, .out = {}};
          },
      .cases = cases,
      .differentiable = {0, 1, 2},
      .parameters = {1, 2},
      .optional = {2},
  };
  return def;
}

}  // namespace gm
