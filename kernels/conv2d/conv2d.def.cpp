#include <algorithm>
#include <array>

#include "kernels/common/op.h"
#include "kernels/common/op_checks.h"
#include "kernels/conv2d/conv2d.h"
#include "kernels/conv2d/conv2d_attrs.h"
#include "kernels/conv2d/conv2d_chunking.h"
#include "kernels/conv2d/conv2d_cuda.h"
#include "kernels/conv2d/conv2d_narrow.h"

namespace gm {

ConvGeometry conv_geometry(const Attrs& attrs, std::span<const TensorSpec> in) {
  const Shape &x = in[0].shape, &w = in[1].shape;
  auto refuse = [&](const std::string& why) {
    fail("conv2d: " + why + "; x " + in[0].str() + ", w " + in[1].str() + ", " + attrs.str());
  };
  if (x.rank != 4 || w.rank != 4) refuse("x must be (N,H,W,C) and w (K,R,R,C)");
  ConvGeometry g;
  g.n = x[0], g.h = x[1], g.w = x[2], g.c = x[3];
  g.k = w[0], g.kernel = attrs.geti("kernel"), g.stride = attrs.geti("stride", 1);
  g.pad_top = attrs.geti("pad_top", 0), g.pad_left = attrs.geti("pad_left", 0);
  g.pad_bottom = attrs.geti("pad_bottom", 0), g.pad_right = attrs.geti("pad_right", 0);
  g.dtype = in[0].dtype;
  if (w[1] != g.kernel || w[2] != g.kernel || w[3] != g.c) refuse("weights do not fit kernel and channels");
  if (in[1].dtype != in[0].dtype) refuse("x and w differ in dtype");
  if (g.dtype == DType::i32 || g.dtype == DType::u8) refuse("x and w must be f32 or bf16");
  if (g.kernel < 1 || g.stride < 1 || std::min({g.pad_top, g.pad_left, g.pad_bottom, g.pad_right}) < 0)
    refuse("kernel and stride must be positive and paddings not negative");
  if (g.h + g.pad_top + g.pad_bottom < g.kernel || g.w + g.pad_left + g.pad_right < g.kernel)
    refuse("the kernel is larger than the padded image");
  g.oh = conv_out(g.h, g.kernel, g.stride, g.pad_top, g.pad_bottom);
  g.ow = conv_out(g.w, g.kernel, g.stride, g.pad_left, g.pad_right);
  return g;
}

size_t conv_workspace(Backend backend, Pass pass, const ConvGeometry& g) {
  if (backend != Backend::cpu) {
    if (pass == Pass::forward) return 0;
    const size_t zeros_and_sums = static_cast<size_t>(8 * g.weights());  // cudnn_conv_backward_weights
    const auto narrow = narrow_gradient(g);
    return std::max({conv_slices_bytes(g), narrow ? narrow->partial_bytes(g) : 0, zeros_and_sums});
  }
  const ConvChunking chunking(g, pass);
  if (pass == Pass::forward) return chunking.packed_bytes(onednn::ConvPass::forward);
  return chunking.packed_bytes(onednn::ConvPass::backward_data) + chunking.partials_bytes() +
         static_cast<size_t>(4 * chunking.groups * g.k);
}

namespace {
bool has_residual(std::span<const TensorSpec> in) { return in.size() > 3 && in[3].shape.rank; }

// A square case; pad: top, left, bottom, right.
OpCase make(DType t, Shape x, int64_t k, int kernel, int stride, std::array<int, 4> pad, bool bias = false,
            bool exact = false, bool large = false, bool residual = false) {
  const Fill fill = exact ? Fill::integers : Fill::normal;
  OpCase c;
  c.attrs = conv_attrs(kernel, stride, pad);
  c.in = {{{x, t}, fill},
          {{{k, kernel, kernel, x[3]}, t}, fill},
          {{{k}, DType::f32}, bias ? fill : Fill::absent}};
  c.exact = exact;
  c.large = large;
  Specs specs;
  for (const CaseInput& in : c.in) specs.push_back(in.spec);
  const ConvGeometry g = conv_geometry(c.attrs, specs);
  c.in.push_back(residual ? CaseInput{{{g.n, g.oh, g.ow, g.k}, t}, fill} : CaseInput{{}, Fill::absent});
  return c;
}

std::vector<OpCase> cases() {
  std::vector<OpCase> list;
  for (DType t : {DType::f32, DType::bf16})
    for (bool exact : {true, false}) {
      if (exact && t == DType::bf16) continue;
      auto add = [&](Shape x, int64_t k, int kernel, int stride, std::array<int, 4> pad, bool bias = false,
                     bool residual = false) {
        list.push_back(make(t, x, k, kernel, stride, pad, bias, exact, false, residual));
      };
      add({1, 1, 1, 1}, 1, 1, 1, {0, 0, 0, 0});
      add({2, 5, 7, 3}, 8, 3, 1, {1, 1, 1, 1}, true);
      add({1, 8, 8, 3}, 20, 5, 2, {1, 1, 2, 2});        // TensorFlow SAME of an even size
      add({3, 9, 6, 7}, 17, 3, 2, {0, 1, 1, 0}, true);  // asymmetric, odd channels
      add({2, 6, 6, 16}, 24, 1, 1, {0, 0, 0, 0});
      add({2, 7, 5, 20}, 33, 1, 2, {0, 0, 0, 0}, true);   // strided 1x1: pixels that no output reads
      add({1, 3, 3, 8}, 16, 3, 1, {2, 2, 2, 2});          // outputs that see the padding only in part
      add({1, 17, 4, 12}, 65, 1, 1, {0, 0, 0, 0}, true);  // one more than a tile
      add({1, 5, 7, 40}, 100, 1, 1, {0, 0, 0, 0}, true);  // one image's late layer
      add({5, 4, 4, 64}, 31, 3, 1, {1, 1, 1, 1});
      add({2, 4, 4, 7}, 5, 5, 1, {2, 2, 2, 2});
      add({2, 5, 7, 20}, 12, 1, 1, {0, 0, 0, 0}, true, true);  // a block's projection
      add({3, 4, 5, 7}, 7, 3, 1, {1, 1, 1, 1}, false, true);
      add({1, 4, 5, 48}, 96, 1, 1, {0, 0, 0, 0}, true, true);  // few pixels, many filters
    }
  // What the kernels for few channels serve (conv2d_narrow.h), and next to it.
  auto narrow = [&](Shape x, int64_t k, int kernel, int stride, std::array<int, 4> pad, bool bias = false,
                    bool residual = false, bool exact = false) {
    list.push_back(make(DType::bf16, x, k, kernel, stride, pad, bias, exact, false, residual));
  };
  narrow({1, 9, 15, 24}, 24, 3, 1, {1, 1, 1, 1});               // part of one tile
  narrow({1, 17, 17, 24}, 24, 3, 1, {1, 1, 1, 1}, true, true);  // one pixel more than tiles
  narrow({1, 16, 16, 8}, 8, 3, 1, {0, 2, 2, 0});                // whole tiles, padding on two sides
  narrow({1, 15, 7, 16}, 32, 3, 1, {1, 1, 1, 1}, false, true);  // one pixel less
  narrow({1, 18, 21, 24}, 96, 3, 2, {0, 0, 1, 1}, true);        // two slices of filters
  narrow({17, 3, 4, 8}, 96, 3, 1, {1, 1, 1, 1});                // more tiles than blocks of a small device
  narrow({2, 11, 13, 32}, 48, 3, 2, {1, 1, 0, 1});
  narrow({1, 12, 19, 3}, 24, 3, 2, {0, 0, 1, 1}, true);  // a stem
  narrow({1, 13, 12, 3}, 56, 5, 2, {1, 2, 2, 1});
  narrow({2, 9, 9, 1}, 16, 7, 1, {3, 3, 3, 3}, true);
  narrow({1, 8, 11, 7}, 8, 7, 2, {2, 3, 3, 2});
  narrow({1, 5, 33, 48}, 16, 3, 1, {1, 1, 1, 1});
  narrow({1, 5, 9, 24}, 24, 2, 2, {0, 0, 0, 0});      // pixels that no output reads
  narrow({1, 6, 7, 8}, 8, 5, 1, {4, 4, 4, 4}, true);  // outputs that see the padding only
  narrow({3, 9, 18, 8}, 8, 2, 1, {1, 0, 0, 1}, true, true, true);
  narrow({2, 10, 9, 8}, 8, 2, 2, {1, 0, 0, 1}, true, false, true);
  // What the 1x1 kernels serve (conv2d_pointwise.h): each number of steps, one warp and several, slices.
  auto pointwise = [&](Shape x, int64_t k, bool bias = false, bool residual = false, bool exact = false) {
    narrow(x, k, 1, 1, {0, 0, 0, 0}, bias, residual, exact);
  };
  pointwise({1, 1, 1, 8}, 8);
  pointwise({1, 9, 7, 16}, 96, true);                // one pixel less than a tile
  pointwise({3, 5, 13, 24}, 144, true, true);        // three tiles, the last of three pixels
  pointwise({1, 13, 5, 40}, 24, false, true, true);  // one pixel more than a tile
  pointwise({5, 2, 9, 64}, 136, true, true);
  pointwise({1, 3, 5, 72}, 432, true);  // two slices of the channels
  pointwise({1, 4, 5, 120}, 40, true, true);
  pointwise({2, 3, 3, 144}, 56, true, true);
  pointwise({1, 3, 3, 176}, 96);
  pointwise({1, 5, 4, 256}, 264, true, true);
  // More channels than that (conv2d_deep.h): each width of a warp, two side by side, slices.
  pointwise({1, 2, 3, 264}, 32, true, true);
  pointwise({3, 6, 8, 272}, 48, true, true, true);  // whole stages and half of one; two tiles, the last of 16
  pointwise({1, 1, 1, 288}, 56);
  pointwise({1, 3, 43, 320}, 80, true, true);  // one pixel more than a tile
  pointwise({2, 7, 7, 264}, 88, false, true);
  pointwise({1, 5, 5, 304}, 168, true);
  list.push_back(make(DType::bf16, {2, 112, 112, 24}, 24, 3, 1, {1, 1, 1, 1}, false, false, true));
  list.push_back(make(DType::bf16, {2, 112, 112, 24}, 96, 3, 2, {0, 0, 1, 1}, false, false, true));
  for (DType t : {DType::f32, DType::bf16}) {
    list.push_back(make(t, {4, 64, 64, 3}, 32, 5, 2, {1, 1, 2, 2}, false, false, true));  // stem of G0 at 64
    list.push_back(make(t, {8, 32, 32, 32}, 16, 1, 1, {0, 0, 0, 0}, false, false, true));
    list.push_back(make(t, {8, 16, 16, 24}, 144, 1, 1, {0, 0, 0, 0}, false, false, true));
    list.push_back(make(t, {16, 4, 4, 480}, 80, 1, 1, {0, 0, 0, 0}, true, false, true));
    list.push_back(make(t, {2, 28, 28, 24}, 24, 3, 1, {1, 1, 1, 1}, false, false, true));  // Fused-MBConv
    list.push_back(make(t, {1, 28, 28, 48}, 96, 3, 2, {0, 0, 1, 1}, false, false, true));
  }
  return list;
}
}  // namespace

const OpDef& conv2d_def() {
  static const OpDef def{
      .name = "conv2d",
      .summary = "dense convolution with optional bias, residual and, in inference, activation",
      .infer =
          [](const Attrs& attrs, std::span<const TensorSpec> in) {
            const ConvGeometry g = conv_geometry(attrs, in);
            const TensorSpec y{{g.n, g.oh, g.ow, g.k}, g.dtype};
            check_act("conv2d", attrs);
            check_optional_f32("conv2d", "bias", in, 2, {g.k});
            if (has_residual(in) && (in[3].shape != y.shape || in[3].dtype != y.dtype))
              fail("conv2d: the residual is " + in[3].str() + ", the result " + y.str());
            return Specs{y};
          },
      .workspace =
          [](Backend backend, Pass pass, const Attrs& attrs, std::span<const TensorSpec> in) {
            return conv_workspace(backend, pass, conv_geometry(attrs, in));
          },
      .cost =
          [](Pass pass, const Attrs& attrs, std::span<const TensorSpec> in) {
            const ConvGeometry g = conv_geometry(attrs, in);
            const double e = double(dtype_bytes(g.dtype)), x = e * double(g.in_pixels() * g.c),
                         y = e * double(g.out_pixels() * g.k), w = double(g.weights());
            if (pass == Pass::forward) return Cost{x + (has_residual(in) ? 2 : 1) * y + e * w, 2 * g.macs()};
            return Cost{2 * x + y + (e + 4) * w, 4 * g.macs()};
          },
      .backward_reads =
          [](const Attrs&) {
            return BackwardReads{.in = {0, 1}, .out = {}};
          },
      .cases = cases,
      .differentiable = {3, 0, 1, 2},  // in this order: see residual_backward
      .parameters = {1, 2},
      .optional = {2, 3},
  };
  return def;
}

}  // namespace gm
