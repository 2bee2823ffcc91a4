#include <array>

#include "kernels/common/op.h"
#include "kernels/conv2d/conv2d_attrs.h"
#include "kernels/global_pool/global_pool.h"
#include "kernels/mbconv/mbconv.h"
#include "kernels/mbconv/mbconv_cpu.h"
#include "kernels/mbconv/mbconv_gpu.h"

namespace gm {

MbconvShape mbconv_shape(const Attrs& attrs, std::span<const TensorSpec> in) {
  auto refuse = [&](const std::string& why) { fail("mbconv: " + why + "; " + attrs.str()); };
  auto given = [&](size_t i) { return i < in.size() && in[i].shape.rank > 0; };
  if (in.size() < 7 || in.size() > 11) refuse("7 to 11 inputs are wanted, not " + std::to_string(in.size()));
  const Shape& x = in[0].shape;
  if (x.rank != 4) refuse("x must be (N,H,W,C), not " + in[0].str());
  if (in[3].shape.rank != 3) refuse("w_depthwise must be (kernel,kernel,E), not " + in[3].str());
  check_depthwise_attrs("mbconv", attrs);
  const int64_t e = in[3].shape[2];
  const MbconvShape s{.d = DepthwiseShape(attrs, {x[0], x[1], x[2], e}),
                      .in_channels = x[3],
                      .out_channels = in[5].shape[0],
                      .squeeze = given(7) ? in[7].shape[0] : 0,
                      .expand = given(1),
                      .residual = attrs.geti("residual", 0) != 0,
                      .act = act_of(attrs),
                      .dtype = in[0].dtype};
  auto expect = [&](size_t i, const char* name, const Shape& shape) {
    if (!given(i) || in[i].shape != shape)
      refuse(std::string(name) + " must be " + shape.str() + ", not " +
             (given(i) ? in[i].str() : std::string("absent")));
  };
  if (s.expand) {
    expect(1, "w_expand", {e, 1, 1, s.in_channels});
    expect(2, "b_expand", {e});
  } else if (e != s.in_channels) {
    refuse("without w_expand the depthwise convolution has the channels of x " + in[0].str());
  }
  expect(4, "b_depthwise", {e});
  expect(5, "w_project", {s.out_channels, 1, 1, e});
  expect(6, "b_project", {s.out_channels});
  if (s.squeeze) {
    expect(7, "w_squeeze", {s.squeeze, e});
    if (given(8)) expect(8, "b_squeeze", {s.squeeze});
    expect(9, "w_excite", {e, s.squeeze});
    if (given(10)) expect(10, "b_excite", {e});
  }
  if (!s.squeeze && given(9)) refuse("w_excite without w_squeeze");
  if (s.residual && s.output() != x) refuse("the residual x " + in[0].str() + " has not the shape of y");
  return s;
}

MbconvShape mbconv_shape(const Attrs& attrs, std::span<const View> in) {
  Specs specs;
  for (const View& v : in) specs.push_back(v ? v.spec : TensorSpec{});
  return mbconv_shape(attrs, specs);
}

namespace {
Specs infer(const Attrs& attrs, std::span<const TensorSpec> in) {
  const MbconvShape s = mbconv_shape(attrs, in);
  TensorSpec expanded = in[0];
  expanded.shape = {s.images(), s.d.height, s.d.width, s.d.channels};
  check_depthwise("mbconv", attrs, expanded, in[3]);
  for (size_t i = 1; i < in.size(); ++i) {
    const DType want = i == 1 || i == 3 || i == 5 ? s.dtype : DType::f32;
    if (in[i].shape.rank && in[i].dtype != want)
      fail("mbconv: input " + std::to_string(i) + " has the wrong type: " + in[i].str() + ", not " +
           dtype_name(want));
  }
  return {{s.output(), s.dtype}};
}

struct Block {
  Shape x;
  int64_t e, k;  // e = 0: no expansion
  int kernel, stride;
  std::array<int, 4> pad;  // top, left, bottom, right
  int64_t squeeze = 0;
  bool residual = false, biased_gate = true;
  Act act = Act::silu;
  bool exact = false, large = false;
};

OpCase make(DType t, const Block& b) {
  const Fill fill = b.exact ? Fill::integers : Fill::normal;
  const int64_t e = b.e ? b.e : b.x[3];
  auto optional = [&](const TensorSpec& spec, bool there) {
    return there ? CaseInput{spec, fill} : CaseInput{{}, Fill::absent};
  };
  // Of the gate: scaled, or its sigmoid is a step that rounding throws.
  auto layer = [&](int64_t rows, int64_t columns) {
    CaseInput in = optional({{rows, columns}, DType::f32}, b.squeeze);
    if (in.fill == Fill::normal) in.fill = Fill::scaled;
    return in;
  };
  return {
      .attrs = conv_attrs(b.kernel, b.stride, b.pad).set("act", b.act).set("residual", b.residual),
      .in = {{{b.x, t}, fill},
             optional({{e, 1, 1, b.x[3]}, t}, b.e),
             optional({{e}, DType::f32}, b.e),
             {{{b.kernel, b.kernel, e}, t}, fill},
             {{{e}, DType::f32}, fill},
             {{{b.k, 1, 1, e}, t}, fill},
             {{{b.k}, DType::f32}, fill},
             layer(b.squeeze, e),
             optional({{b.squeeze}, DType::f32}, b.squeeze && b.biased_gate),
             layer(e, b.squeeze),
             optional({{e}, DType::f32}, b.squeeze && b.biased_gate)},
      .exact = b.exact,
      .tolerance = t == DType::bf16 ? 2.5e-2
                   : b.squeeze      ? 1e-4
                                    : 0,
      .why = t == DType::bf16
                 ? "what lies between the convolutions is rounded to bf16 as well, before sums that cancel"
                 : "the gate meets the rounding of logits that are sums of hundreds of large terms",
      .large = b.large};
}

std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  const std::array<int, 4> one{1, 1, 1, 1}, two{2, 2, 2, 2};
  const Block small[] = {
      {{1, 1, 1, 1}, 1, 1, 3, 1, one},
      {{2, 5, 6, 7}, 20, 9, 3, 1, one},                       // nothing is a multiple of 4
      {{2, 6, 6, 16}, 96, 16, 3, 1, one, 0, true},            // a block with a residual
      {{1, 9, 10, 8}, 48, 24, 3, 2, {1, 0, 1, 1}, 0, false},  // rows of a tile run over the edge
      {{3, 8, 8, 24}, 144, 40, 5, 2, {1, 1, 2, 2}},           // TensorFlow SAME of an even size
      {{1, 17, 13, 8}, 48, 8, 5, 1, two, 0, true},            // one image: several tiles
      {{2, 10, 9, 20}, 0, 12, 3, 1, one},                     // no expansion
      {{1, 7, 8, 12}, 0, 12, 5, 1, two, 0, true},             // ... with a residual
      {{1, 6, 7, 8}, 16, 8, 7, 2, {3, 3, 3, 3}, 0, false, true, Act::relu6},
      {{2, 5, 5, 8}, 24, 8, 3, 1, one, 0, true, true, Act::none},
      {{2, 6, 5, 8}, 40, 12, 3, 1, one, 2, false, true},   // squeeze-and-excitation
      {{2, 8, 8, 16}, 96, 16, 5, 1, two, 4, true, false},  // ... its layers without biases
      {{1, 12, 12, 8}, 32, 20, 3, 2, {0, 0, 1, 1}, 3, false, true},
      {{2, 7, 6, 12}, 0, 16, 3, 1, one, 3, false, true, Act::relu},
  };
  for (DType t : {DType::f32, DType::bf16}) {
    for (const Block& b : small) list.push_back(make(t, b));
    // Enough images for a card: several in a tile, several chunks one after another.
    list.push_back(make(t, {{300, 2, 2, 8}, 48, 8, 3, 1, one, 0, true}));
    for (int64_t n : {1, 64}) {  // blocks of G0 and G3
      list.push_back(make(t, {{n, 24, 24, 40}, 240, 40, 3, 1, one, 0, true, true, Act::silu, false, true}));
      list.push_back(
          make(t, {{n, 8, 8, 24}, 144, 40, 5, 2, {1, 1, 2, 2}, 0, false, true, Act::silu, false, true}));
      list.push_back(make(t, {{n, 48, 48, 56}, 0, 32, 3, 1, one, 0, false, true, Act::silu, false, true}));
      list.push_back(make(t, {{n, 12, 12, 72}, 432, 72, 5, 1, two, 18, true, true, Act::silu, false, true}));
    }
  }
  list.push_back(make(DType::f32, {{130, 4, 4, 8}, 36, 8, 3, 1, one, 4, true}));
  const Block exact[] = {{{2, 6, 7, 8}, 24, 12, 3, 1, one, 0, false, true, Act::relu, true},
                         {{1, 11, 9, 7}, 20, 7, 3, 1, one, 0, true, true, Act::none, true},
                         {{1, 9, 9, 12}, 0, 5, 5, 2, two, 0, false, true, Act::relu6, true}};
  for (const Block& b : exact) list.push_back(make(DType::f32, b));
  // relu6 keeps e and d to integers that bf16 holds.
  const Block small_integers[] = {{{3, 6, 7, 8}, 40, 12, 3, 1, one, 0, false, true, Act::relu6, true},
                                  {{2, 9, 9, 24}, 24, 24, 5, 1, two, 0, true, true, Act::relu6, true},
                                  {{1, 8, 8, 9}, 0, 7, 3, 2, {0, 0, 1, 1}, 0, false, true, Act::relu6, true}};
  for (const Block& b : small_integers) list.push_back(make(DType::bf16, b));
  return list;
}

std::vector<CompositionStep> composition(const Attrs& attrs, std::span<const TensorSpec> in) {
  const MbconvShape s = mbconv_shape(attrs, in);
  std::vector<CompositionStep> steps;
  auto add = [&](const char* op, const Attrs& a, std::vector<std::string> from, const std::string& to) {
    steps.push_back({.op = op, .attrs = a, .in = std::move(from), .out = {to}});
    return to;
  };
  auto activate = [&](const std::string& z, Act act) {
    return add("activation", act_attrs(act), {z}, "act " + z);
  };
  std::string e = "in0";
  if (s.expand) e = activate(add("conv2d", {{"kernel", 1}}, {e, "in1", "in2", "none"}, "e"), s.act);
  const Attrs plain = Attrs(attrs).set("act", Act::none);
  std::string d = activate(add("depthwise_conv2d", plain, {e, "in3", "in4"}, "d"), s.act);
  if (s.squeeze) {
    const auto pooled = add("global_pool", {{"kind", PoolKind::average}}, {d}, "pooled");
    const auto narrow = activate(add("linear", {}, {pooled, "in7", "in8"}, "narrow"), s.act);
    const auto gate = activate(add("linear", {}, {narrow, "in9", "in10"}, "gate"), Act::sigmoid);
    d = add("channel_scale", {}, {d, gate}, "scaled");
  }
  add("conv2d", {{"kernel", 1}}, {d, "in5", "in6", s.residual ? "in0" : "none"}, "out0");
  return steps;
}

size_t workspace(Backend backend, Pass pass, const Attrs& attrs, std::span<const TensorSpec> in) {
  if (pass == Pass::backward) return 0;
  const MbconvShape s = mbconv_shape(attrs, in);
  if (backend == Backend::cpu) return mb_cpu_workspace(s).bytes;
  const auto plan = mbconv_plan(s);
  return plan ? mb_gpu_workspace(s, *plan).bytes : 0;  // the launcher says that nothing fits
}

Cost cost(Pass pass, const Attrs& attrs, std::span<const TensorSpec> in) {
  if (pass == Pass::backward) return {};
  const MbconvShape s = mbconv_shape(attrs, in);
  const double item = double(dtype_bytes(s.dtype)), pixels = double(s.images()) * double(s.out_pixels());
  const double expanded = item * double(s.images() * s.d.out_image());
  double bytes = item * double(s.images()) * double(s.in_image() + s.out_image());
  for (size_t i = 1; i < in.size(); ++i) bytes += in[i].shape.rank ? double(in[i].bytes()) : 0;
  double macs = s.d.macs() + pixels * double(s.d.channels * s.out_channels);
  if (s.expand) macs += double(s.images() * s.in_image()) * double(s.d.channels);
  if (s.squeeze) {  // the gate needs the whole map: d is stored and read again
    bytes += 2 * expanded;
    macs += 2 * double(s.images() * s.d.channels * s.squeeze);
  }
  return {bytes, 2 * macs};
}
}  // namespace

const OpDef& mbconv_def() {
  static const OpDef def{
      .name = "mbconv",
      .summary = "inference: a whole MBConv block, its expanded tensors never stored",
      .infer = infer,
      .workspace = workspace,
      .cost = cost,
      .cases = cases,
      .composition = composition,
      .optional = {1, 2, 7, 8, 9, 10},
  };
  return def;
}

}  // namespace gm
