#include "kernels/depthwise_conv2d/depthwise_conv2d.h"

#include "kernels/batch_norm/bn_workspace.h"
#include "kernels/common/op.h"
#include "kernels/common/op_checks.h"
#include "kernels/conv2d/conv2d_attrs.h"
#include "kernels/depthwise_conv2d/depthwise_gpu.h"

namespace gm {

void check_depthwise_attrs(const char* op, const Attrs& attrs) {
  const std::string name = op;
  const int kernel = attrs.geti("kernel"), stride = attrs.geti("stride", 1);
  GM_CHECK(kernel > 0 && kernel % 2 == 1, name + ": kernel must be odd, not " + std::to_string(kernel));
  GM_CHECK(stride == 1 || stride == 2, name + ": stride must be 1 or 2, not " + std::to_string(stride));
  for (const char* pad : {"pad_top", "pad_left", "pad_bottom", "pad_right"}) {
    const int size = attrs.geti(pad, 0);
    GM_CHECK(size >= 0 && size < kernel,
             name + ": " + pad + " must be in [0, kernel), not " + std::to_string(size));
  }
  check_act(name, attrs);
}

TensorSpec check_depthwise(const char* op, const Attrs& attrs, const TensorSpec& x, const TensorSpec& w) {
  const std::string name = op;
  GM_CHECK(x.shape.rank == 4 && (x.dtype == DType::f32 || x.dtype == DType::bf16),
           name + ": x must be f32 or bf16 (N,H,W,C), not " + x.str());
  check_depthwise_attrs(op, attrs);  // before the shape, which divides by the stride
  const DepthwiseShape d(attrs, x.shape);
  GM_CHECK(d.height + d.pad_top + attrs.geti("pad_bottom", 0) >= d.kernel &&
               d.width + d.pad_left + attrs.geti("pad_right", 0) >= d.kernel,
           name + ": kernel larger than the padded image " + x.str());
  GM_CHECK(w.dtype == x.dtype && w.shape == Shape({d.kernel, d.kernel, d.channels}),
           name + ": w must be (kernel, kernel, C) like x " + x.str() + ", not " + w.str());
  return {d.output(), x.dtype};
}

namespace {
std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  using Pads = std::array<int, 4>;
  auto add = [&](Shape s, DType t, int kernel, int stride, Pads p, bool bias, bool exact = false,
                 bool large = false) {
    const Fill fill = exact ? Fill::integers : Fill::normal;
    list.push_back({.attrs = conv_attrs(kernel, stride, p),
                    .in = {{{s, t}, fill},
                           {{{kernel, kernel, s[3]}, t}, fill},
                           {{{s[3]}, DType::f32}, bias ? fill : Fill::absent}},
                    .exact = exact,
                    .large = large});
  };
  for (int kernel : {3, 5, 7}) {
    const int p = kernel / 2;
    for (int stride : {1, 2}) {
      add({2, 9, 10, 20}, DType::f32, kernel, stride, {p, p, p, p}, true, true);
      add({1, 8, 8, 16}, DType::f32, kernel, stride, {p - stride + 1, p - stride + 1, p, p}, false, true);
      add({2, 7, 11, 7}, DType::f32, kernel, stride, {p, 0, 1, p}, true);
    }
  }
  add({2, 5, 6, 1}, DType::f32, 9, 1, {4, 4, 4, 4}, true, true);
  add({2, 11, 10, 9}, DType::f32, 9, 2, {4, 3, 4, 4}, false, true);
  add({3, 2, 3, 24}, DType::f32, 3, 1, {1, 1, 1, 1}, true, true);
  add({3, 3, 2, 24}, DType::f32, 3, 2, {0, 0, 1, 1}, true, true);
  add({1, 4, 4, 480}, DType::f32, 3, 1, {1, 1, 1, 1}, false, true);
  add({5, 1, 1, 8}, DType::f32, 5, 1, {2, 2, 2, 2}, false, true);
  add({2, 6, 17, 33}, DType::f32, 5, 2, {1, 1, 2, 2}, false, true);
  // The card's tiles (backward): several strips and rows of an image, several images, a slice with idle
  // channels.
  add({1, 9, 150, 32}, DType::f32, 5, 1, {2, 2, 2, 2}, false, true);
  add({1, 9, 150, 32}, DType::f32, 5, 2, {2, 1, 2, 2}, false, true);
  add({1100, 2, 3, 8}, DType::f32, 3, 1, {1, 1, 1, 1}, false, true);
  add({2, 20, 60, 72}, DType::bf16, 3, 2, {0, 0, 1, 1}, false);
  // Its strips: of 7, 6 and 4 columns, one or several, and widths that they do not fill; bands of
  // rows; pairs of channels that are no 16 bytes; more units than threads.
  for (int width : {14, 7, 12, 6, 8, 4, 9, 3}) {
    add({1, 5, width, 10}, DType::bf16, 3, 1, {1, 1, 1, 1}, width > 6, true);
    add({1, 5, width, 10}, DType::bf16, 5, 1, {2, 2, 2, 2}, width > 6, true);
    add({1, 9, 2 * width, 16}, DType::bf16, 3, 2, {0, 0, 1, 1}, false, true);
    add({1, 6, 2 * width, 24}, DType::bf16, 5, 2, {1, 1, 2, 2}, false, true);
  }
  add({1, 3, 8, 80}, DType::bf16, 5, 1, {2, 2, 2, 2}, true, true);
  add({1, 5, 7, 8}, DType::bf16, 3, 1, {2, 2, 0, 0}, false, true);
  add({3300, 1, 2, 80}, DType::bf16, 3, 1, {1, 1, 1, 1}, false, true);
  add({530, 1, 1, 8}, DType::bf16, 3, 1, {1, 1, 1, 1}, false, true);  // more tiles than blocks
  // Backward that marches: bands of four and three rows, two units a thread.
  add({50, 7, 4, 960}, DType::bf16, 3, 1, {1, 1, 1, 1}, false);
  add({1200, 1, 4, 80}, DType::bf16, 3, 1, {1, 1, 1, 1}, false);
  add({650, 1, 4, 80}, DType::bf16, 5, 1, {2, 2, 2, 2}, false);
  for (int stride : {1, 2}) {
    add({2, 9, 10, 20}, DType::bf16, 3, stride, {1, 1, 1, 1}, true);
    add({2, 8, 13, 40}, DType::bf16, 5, stride, {stride == 2, 2, 2, 2}, false);
    add({1, 14, 14, 72}, DType::bf16, 3, stride, {stride == 1, stride == 1, 1, 1}, false);
    add({1, 9, 9, 16}, DType::bf16, 7, stride, {3, 3, 3, 3}, false);
  }
  add({8, 32, 32, 32}, DType::f32, 3, 1, {1, 1, 1, 1}, false, false, true);
  add({8, 32, 32, 96}, DType::f32, 3, 2, {0, 0, 1, 1}, false, false, true);
  add({16, 16, 16, 144}, DType::f32, 5, 2, {1, 1, 2, 2}, false, false, true);
  add({16, 8, 8, 240}, DType::f32, 5, 1, {2, 2, 2, 2}, false, false, true);
  add({4, 14, 14, 512}, DType::bf16, 3, 1, {1, 1, 1, 1}, false, false, true);
  return list;
}

size_t workspace(Backend backend, Pass pass, const Attrs& attrs, std::span<const TensorSpec> in) {
  const DepthwiseShape d(attrs, in[0].shape);
  const size_t weights = static_cast<size_t>(d.taps() * d.channels) * sizeof(float);
  if (backend != Backend::cpu)  // bias sums, then partial weight gradients
    return pass == Pass::forward ? 0 : bn_gpu_workspace(d.channels) + depthwise_gpu_workspace(d);
  if (pass == Pass::forward) return weights;
  return weights + static_cast<size_t>(depthwise_groups(d)) * (weights + d.channels * sizeof(float));
}
}  // namespace

const OpDef& depthwise_conv2d_def() {
  static const OpDef def{
      .name = "depthwise_conv2d",
      .summary = "depthwise convolution (+ bias, + activation in inference)",
      .infer =
          [](const Attrs& a, std::span<const TensorSpec> in) {
            const TensorSpec y = check_depthwise("depthwise_conv2d", a, in[0], in[1]);
            check_optional_f32("depthwise_conv2d", "bias", in, 2, {y.shape[3]});
            return Specs{y};
          },
      .workspace = workspace,
      .cost =
          [](Pass pass, const Attrs& a, std::span<const TensorSpec> in) {
            const DepthwiseShape d(a, in[0].shape);
            const double x = double(in[0].bytes()), y = x * double(d.out_image()) / double(d.in_image());
            if (pass == Pass::forward) return Cost{x + y, 2 * d.macs()};
            return Cost{2 * x + y, 4 * d.macs()};
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
