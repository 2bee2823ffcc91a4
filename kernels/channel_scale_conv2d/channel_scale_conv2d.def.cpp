#include "kernels/channel_scale_conv2d/channel_scale_conv2d.h"

#include "kernels/common/op.h"
#include "kernels/common/op_checks.h"
#include "kernels/conv2d/conv2d.h"

namespace gm {

ConvGeometry scaled_conv_geometry(const Attrs& attrs, std::span<const TensorSpec> in) {
  const TensorSpec conv[] = {in[0], in[2]};
  const ConvGeometry g = conv_geometry(attrs, conv);
  GM_CHECK(g.pointwise(), "channel_scale_conv2d: the convolution must be 1x1, got " + attrs.str());
  return g;
}

size_t scaled_conv_input_bytes(const ConvGeometry& g) {
  return aligned_bytes(static_cast<size_t>(g.in_pixels() * g.c) * dtype_bytes(g.dtype));
}

namespace {
bool given(std::span<const TensorSpec> in, size_t k) { return in.size() > k && in[k].shape.rank; }
void check_spec(const char* what, const TensorSpec& got, const TensorSpec& want) {
  if (got.shape != want.shape || got.dtype != want.dtype)
    fail(std::string("channel_scale_conv2d: ") + what + " is " + got.str() + ", not " + want.str());
}

Specs infer(const Attrs& attrs, std::span<const TensorSpec> in) {
  const ConvGeometry g = scaled_conv_geometry(attrs, in);
  const TensorSpec y{{g.n, g.oh, g.ow, g.k}, g.dtype};
  check_act("channel_scale_conv2d", attrs);
  check_spec("s", in[1], {{g.n, g.c}, DType::f32});
  if (given(in, 3)) check_spec("bias", in[3], {{g.k}, DType::f32});
  if (given(in, 4)) check_spec("residual", in[4], y);
  return {y};
}

std::vector<CompositionStep> composition(const Attrs& attrs, std::span<const TensorSpec> in) {
  std::vector<CompositionStep> steps;
  auto add = [&](const char* op, const Attrs& a, std::vector<std::string> from, const char* to) {
    steps.push_back({.op = op, .attrs = a, .in = std::move(from), .out = {to}, .state = {}});
  };
  add("channel_scale", {}, {"in0", "in1"}, "scaled");
  add("conv2d", Attrs(attrs).set("act", Act::none), {"scaled", "in2", "in3"}, "z");
  add("activation", act_attrs(act_of(attrs)), {"z"}, given(in, 4) ? "a" : "out0");
  if (given(in, 4)) add("add", {}, {"a", "in4"}, "out0");
  return steps;
}

std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  auto add = [&](Shape x, DType t, int64_t k, bool bias, bool residual, Act act = Act::none,
                 Fill fill = Fill::normal, bool large = false) {
    OpCase c{.attrs = {{"kernel", 1}, {"act", act}},
             .in = {{{x, t}, fill},
                    {{{x[0], x[3]}, DType::f32}, fill},
                    {{{k, 1, 1, x[3]}, t}, fill},
                    bias ? CaseInput{{{k}, DType::f32}, fill} : CaseInput{{}, Fill::absent},
                    residual ? CaseInput{{{x[0], x[1], x[2], k}, t}, fill} : CaseInput{{}, Fill::absent}},
             .exact = fill == Fill::integers,
             .large = large};
    if (t == DType::bf16 && !c.exact)
      c.tolerance = 1.2e-2, c.why = "rounded three times: x s, on a processor the sum, and the result";
    list.push_back(std::move(c));
  };
  for (DType t : {DType::f32, DType::bf16}) {
    add({1, 1, 1, 1}, t, 1, false, false);
    add({2, 3, 5, 7}, t, 5, true, true);
    add({3, 5, 7, 24}, t, 16, true, false);             // a tile of three images
    add({2, 8, 8, 40}, t, 24, true, true);              // a whole tile of two
    add({1, 3, 43, 72}, t, 40, false, true);            // one pixel more than a tile
    add({9, 4, 4, 96}, t, 88, true, false, Act::silu);  // a tile of eight images
    add({5, 7, 7, 144}, t, 168, true, true);            // images across tiles, slices of the channels
    add({131, 1, 1, 64}, t, 8, true, false);            // an image a pixel
    add({16, 14, 14, 480}, t, 80, true, true, Act::none, Fill::normal, true);
    add({16, 7, 7, 960}, t, 160, true, true, Act::none, Fill::normal, true);
  }
  for (DType t : {DType::f32, DType::bf16}) add({3, 6, 7, 40}, t, 32, true, true, Act::none, Fill::integers);
  return list;
}
}  // namespace

const OpDef& channel_scale_conv2d_def() {
  static const OpDef def{
      .name = "channel_scale_conv2d",
      .summary = "1x1 convolution of an input scaled per image and channel (squeeze-excite, inference)",
      .infer = infer,
      .workspace =
          [](Backend backend, Pass pass, const Attrs& attrs, std::span<const TensorSpec> in) {
            const ConvGeometry g = scaled_conv_geometry(attrs, in);
            return scaled_conv_input_bytes(g) + conv_workspace(backend, pass, g);
          },
      .cost =
          [](Pass, const Attrs& attrs, std::span<const TensorSpec> in) {
            const ConvGeometry g = scaled_conv_geometry(attrs, in);
            const double e = double(dtype_bytes(g.dtype)), x = double(g.in_pixels() * g.c),
                         y = double(g.out_pixels() * g.k);
            return Cost{e * (x + (given(in, 4) ? 2 : 1) * y + double(g.weights())) + double(in[1].bytes()),
                        2 * g.macs() + x};
          },
      .cases = cases,
      .composition = composition,
      .optional = {3, 4},
  };
  return def;
}

}  // namespace gm
