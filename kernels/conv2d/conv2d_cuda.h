// Sizes of our own CUDA convolution that the op's description and its kernels share.
#pragma once
#include <algorithm>
#include <cstdint>

#include "kernels/common/ceil_div.h"
#include "kernels/common/error.h"
#include "kernels/conv2d/conv2d.h"

namespace gm {

/// ConvGeometry in the 32-bit numbers kernels compute with; pixels stay 64-bit.
struct ConvProblem {
  int h, w, c, k, kernel, stride, pad_top, pad_left, oh, ow, taps;
  int64_t in_pixels, out_pixels;
};
inline ConvProblem conv_problem(const ConvGeometry& g) {
  GM_CHECK(g.kernel * g.kernel * std::max(g.c, g.k) < (int64_t{1} << 30), "convolution too large");
  auto i = [](int64_t v) { return static_cast<int>(v); };
  return {i(g.h),        i(g.w),  i(g.c),  i(g.k),      i(g.kernel),   i(g.stride),   i(g.pad_top),
          i(g.pad_left), i(g.oh), i(g.ow), i(g.taps()), g.in_pixels(), g.out_pixels()};
}

/// Slices of output pixels whose partial weight gradients are summed in a second stage. They depend on the
/// problem only, so that the result is the same bits on every card.
struct ConvSlices {
  int count;
  int64_t pixels;  // per slice: whole steps of 16
};
inline ConvSlices conv_slices(const ConvGeometry& g) {
  const int64_t tiles = ceil_div(g.k, 64) * ceil_div(g.taps(), 64), pixels = g.out_pixels();
  const int64_t wanted = std::clamp<int64_t>(256 / tiles, 1, ceil_div(pixels, 128));
  const int64_t slice = round_up(ceil_div(pixels, wanted), 16);
  return {static_cast<int>(ceil_div(pixels, slice)), slice};
}
inline size_t conv_slices_bytes(const ConvGeometry& g) {
  return static_cast<size_t>(4 * conv_slices(g).count * (g.weights() + g.k));
}

}  // namespace gm
