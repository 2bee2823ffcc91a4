#include "kernels/fused_mbconv/fused_mbconv.h"

#include <array>

#include "kernels/common/op.h"
#include "kernels/common/op_checks.h"
#include "kernels/conv2d/conv2d.h"
#include "kernels/conv2d/conv2d_attrs.h"
#include "kernels/fused_mbconv/fused_mbconv_steps.h"

namespace gm {

FusedMbconvShape fused_mbconv_shape(const Attrs& attrs, std::span<const TensorSpec> in) {
  auto refuse = [&](const std::string& why) { fail("fused_mbconv: " + why + "; " + attrs.str()); };
  if (in.size() != 5) refuse("5 inputs are wanted, not " + std::to_string(in.size()));
  FusedMbconvShape s{.residual = attrs.geti("residual", 0) != 0, .act = act_of(attrs)};
  check_act("fused_mbconv", attrs);
  s.expand = conv_geometry(attrs, in.first(2));
  const ConvGeometry& g = s.expand;
  const TensorSpec expanded{{g.n, g.oh, g.ow, g.k}, g.dtype}, projection[] = {expanded, in[3]};
  s.project = conv_geometry(fused_mbconv_projection(), projection);
  if (s.residual && Shape{g.n, g.oh, g.ow, s.project.k} != in[0].shape)
    refuse("the residual x " + in[0].str() + " has not the shape of y");
  return s;
}

FusedMbconvShape fused_mbconv_shape(const Attrs& attrs, std::span<const View> in) {
  Specs specs;
  for (const View& v : in) specs.push_back(v ? v.spec : TensorSpec{});
  return fused_mbconv_shape(attrs, specs);
}

size_t fused_mbconv_expanded_bytes(const FusedMbconvShape& s) {
  return aligned_bytes(static_cast<size_t>(s.expanded_values()) * dtype_bytes(s.expand.dtype));
}

namespace {
Specs infer(const Attrs& attrs, std::span<const TensorSpec> in) {
  const FusedMbconvShape s = fused_mbconv_shape(attrs, in);
  check_f32("fused_mbconv", "b_expand", in[2], {s.expand.k});
  check_f32("fused_mbconv", "b_project", in[4], {s.project.k});
  return {{{s.expand.n, s.expand.oh, s.expand.ow, s.project.k}, s.expand.dtype}};
}

std::vector<CompositionStep> composition(const Attrs& attrs, std::span<const TensorSpec> in) {
  const FusedMbconvShape s = fused_mbconv_shape(attrs, in);
  std::vector<CompositionStep> steps;
  auto add = [&](const char* op, const Attrs& a, std::vector<std::string> from, const char* to) {
    steps.push_back({.op = op, .attrs = a, .in = std::move(from), .out = {to}, .state = {}});
  };
  add("conv2d", Attrs(attrs).set("act", Act::none), {"in0", "in1", "in2"}, "z");
  add("activation", act_attrs(s.act), {"z"}, "e");
  add("conv2d", fused_mbconv_projection(), {"e", "in3", "in4"}, s.residual ? "p" : "out0");
  if (s.residual) add("add", {}, {"p", "in0"}, "out0");
  return steps;
}

struct Block {
  Shape x;
  int64_t e, k;
  int kernel, stride;
  std::array<int, 4> pad;  // top, left, bottom, right
  bool residual = false;
  Act act = Act::silu;
  bool exact = false, large = false;
};

OpCase make(DType t, const Block& b) {
  const Fill fill = b.exact ? Fill::integers : Fill::normal;
  OpCase c{.attrs = conv_attrs(b.kernel, b.stride, b.pad).set("act", b.act).set("residual", b.residual),
           .in = {{{b.x, t}, fill},
                  {{{b.e, b.kernel, b.kernel, b.x[3]}, t}, fill},
                  {{{b.e}, DType::f32}, fill},
                  {{{b.k, 1, 1, b.e}, t}, fill},
                  {{{b.k}, DType::f32}, fill}},
           .exact = b.exact,
           .large = b.large};
  if (t == DType::bf16 && !b.exact)
    c.tolerance = 2.5e-2, c.why = "e is rounded to bf16 as well, before sums that cancel";
  return c;
}

std::vector<OpCase> cases() {
  const std::array<int, 4> same{1, 1, 1, 1}, even{0, 0, 1, 1};
  const Block blocks[] = {
      {{1, 1, 1, 1}, 1, 1, 3, 1, same},
      {{2, 5, 6, 7}, 20, 9, 3, 1, same},  // nothing is a multiple of 8
      {{2, 6, 6, 16}, 64, 16, 3, 1, same, true},
      {{1, 13, 13, 8}, 32, 8, 3, 1, same, true},      // half a step of channels
      {{1, 10, 17, 24}, 96, 48, 3, 2, {0, 1, 1, 1}},  // the 24 channels of EfficientNetV2-S
      {{2, 6, 7, 48}, 200, 64, 3, 1, same},           // a chunk that is not whole
      {{1, 6, 5, 64}, 72, 56, 3, 2, even},            // four steps; K between two widths
      {{1, 9, 9, 40}, 48, 40, 5, 1, {2, 2, 2, 2}, true, Act::relu},
      {{3, 4, 4, 8}, 16, 16, 2, 1, {0, 0, 1, 1}, false, Act::relu6},
      {{1, 2, 2, 8}, 16, 8, 3, 2, {2, 2, 1, 1}, true},  // a residual behind a stride: the two steps
      {{2, 7, 6, 32}, 128, 32, 3, 1, same, true, Act::none, true},
      {{1, 8, 8, 16}, 48, 24, 3, 2, even, false, Act::relu, true},
      {{64, 24, 24, 16}, 48, 16, 3, 1, same, true, Act::silu, false, true},  // four warps a tile
      {{96, 28, 28, 24}, 96, 56, 3, 2, even, false, Act::silu, false, true},
      {{2, 56, 56, 48}, 192, 48, 3, 1, same, true, Act::silu, false, true},
      {{2, 56, 56, 48}, 192, 64, 3, 2, even, false, Act::silu, false, true},
      {{2, 28, 28, 64}, 256, 64, 3, 1, same, true, Act::silu, false, true},
  };
  std::vector<OpCase> list;
  for (DType t : {DType::f32, DType::bf16})
    for (const Block& b : blocks)
      if (!b.exact || t == DType::f32) list.push_back(make(t, b));  // sums of bf16: op_fused_mbconv_test
  return list;
}
}  // namespace

const OpDef& fused_mbconv_def() {
  static const OpDef def{
      .name = "fused_mbconv",
      .summary =
          "a whole Fused-MBConv block: expanding k x k convolution, activation, projection (inference)",
      .infer = infer,
      .workspace =
          [](Backend backend, Pass pass, const Attrs& attrs, std::span<const TensorSpec> in) {
            const FusedMbconvShape s = fused_mbconv_shape(attrs, in);
            return fused_mbconv_expanded_bytes(s) + std::max(conv_workspace(backend, pass, s.expand),
                                                             conv_workspace(backend, pass, s.project));
          },
      .cost =
          [](Pass, const Attrs& attrs, std::span<const TensorSpec> in) {
            const FusedMbconvShape s = fused_mbconv_shape(attrs, in);
            const ConvGeometry &g = s.expand, &p = s.project;
            const double e = double(dtype_bytes(g.dtype));
            return Cost{e * (double(g.in_pixels() * g.c) + double(p.out_pixels() * p.k) +
                             double(g.weights() + p.weights())),
                        2 * (g.macs() + p.macs()) + double(s.expanded_values())};
          },
      .cases = cases,
      .composition = composition,
  };
  return def;
}

}  // namespace gm
