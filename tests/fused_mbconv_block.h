// Fused-MBConv blocks with values, for the tests of their kernel.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/conv2d/conv2d_attrs.h"
#include "kernels/fused_mbconv/fused_mbconv_tiles.h"
#include "tests/op_direct.h"
#include "tests/pixel_products.h"

namespace gm {
namespace simt_dev {
void fused_mbconv_planned(const OpCall&, const FusedMbconvTiles&);
}

namespace test {

/// With TensorFlow's SAME padding and SiLU; a residual where it fits.
inline FusedMbconvShape fused_block(int64_t images, int64_t size, int64_t c, int64_t e, int64_t k,
                                    int kernel = 3, int stride = 1) {
  const int64_t out = (size + stride - 1) / stride,
                pad = std::max<int64_t>(0, (out - 1) * stride + kernel - size);
  FusedMbconvShape s{.residual = stride == 1 && c == k, .act = Act::silu};
  s.expand = {.n = images,
              .h = size,
              .w = size,
              .c = c,
              .k = e,
              .kernel = kernel,
              .stride = stride,
              .pad_top = pad / 2,
              .pad_left = pad / 2,
              .pad_bottom = pad - pad / 2,
              .pad_right = pad - pad / 2,
              .oh = out,
              .ow = out,
              .dtype = DType::bf16};
  s.project = pixel_product(images * out * out, e, k);
  return s;
}

/// A block's operands; e comes out about as large as x.
struct FusedBlock {
  FusedMbconvShape s;
  std::vector<bf16> x = rounded(noise(1, s.expand.in_pixels() * s.expand.c, 0, 1)),
                    w_expand = rounded(
                        noise(2, s.expand.weights(), 0, 1 / std::sqrt(static_cast<float>(s.expand.taps())))),
                    w_project = rounded(noise(3, s.project.k*s.expand.k, 0, 0.2f));
  std::vector<float> b_expand = noise(4, s.expand.k, 0, 0.5f), b_project = noise(5, s.project.k, 0, 0.5f);

  explicit FusedBlock(const FusedMbconvShape& shape) : s(shape) {}

  /// y on a device, by the op's own kernel or by another.
  std::vector<bf16> run(Direct& d, const std::function<void(const OpCall&)>& kernel = {}) const {
    const ConvGeometry& g = s.expand;
    const Attrs attrs = conv_attrs(g).set("act", s.act).set("residual", s.residual);
    const View y = d.space({{g.n, g.oh, g.ow, s.project.k}, g.dtype});
    const std::vector<View> in{d.put(x, {g.n, g.h, g.w, g.c}),
                               d.put(w_expand, {g.k, g.kernel, g.kernel, g.c}), d.put(b_expand),
                               d.put(w_project, {s.project.k, 1, 1, g.k}), d.put(b_project)};
    d.forward_by(kernel, "fused_mbconv", attrs, in, {y});
    return d.get<bf16>(y);
  }
};

}  // namespace test
}  // namespace gm
