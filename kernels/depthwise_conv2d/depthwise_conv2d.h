// Depthwise convolution: every channel has its own kernel x kernel filter.
//   y[n,oh,ow,c] = act( bias[c] + sum_{r,s}
//                       x[n, oh*stride + r - pad_top, ow*stride + s - pad_left, c] * w[r,s,c] )
// with x = 0 outside the image.
// attrs  kernel  odd (3 and 5 are fast, on the CPU also 7);  stride  1 or 2
//        pad_top, pad_left, pad_bottom, pad_right  0 .. kernel - 1, each side on its own (TensorFlow SAME at
//        stride 2 pads more at the bottom and right)
//        act  (Act), inference only: backward throws when it is not `none`
// in[0]  x     (N, H, W, C) f32 or bf16
// in[1]  w     (kernel, kernel, C) dtype of x, parameter
// in[2]  bias  (C) f32, parameter, optional
// out[0] y     (N, OH, OW, C) dtype of x,  OH = (H + pad_top + pad_bottom - kernel) / stride + 1, OW alike
// Backward reads x and w:
//   dx[n,h,w,c]  = sum over the outputs that saw the pixel of w[r,s,c] * dy
//   dw[r,s,c]    = sum_{n,oh,ow} x[n, oh*stride + r - pad_top, ow*stride + s - pad_left, c] * dy[n,oh,ow,c]
//   dbias[c]     = sum_{n,oh,ow} dy[n,oh,ow,c]
#pragma once
#include <algorithm>

#include "kernels/activation/activation.h"
#include "kernels/common/attrs.h"
#include "kernels/common/view.h"

namespace gm {

/// All extents of one depthwise convolution.
struct DepthwiseShape {
  int64_t images, height, width, channels, out_height, out_width;
  int kernel, stride, pad_top, pad_left;

  DepthwiseShape(const Attrs& a, const Shape& x)
      : images(x[0]),
        height(x[1]),
        width(x[2]),
        channels(x[3]),
        kernel(a.geti("kernel")),
        stride(a.geti("stride", 1)),
        pad_top(a.geti("pad_top", 0)),
        pad_left(a.geti("pad_left", 0)) {
    out_height = (height + pad_top + a.geti("pad_bottom", 0) - kernel) / stride + 1;
    out_width = (width + pad_left + a.geti("pad_right", 0) - kernel) / stride + 1;
  }
  int taps() const { return kernel * kernel; }
  int64_t in_image() const { return height * width * channels; }
  int64_t out_image() const { return out_height * out_width * channels; }
  Shape output() const { return {images, out_height, out_width, channels}; }
  double macs() const { return static_cast<double>(images * out_image()) * taps(); }
};

/// Throws unless the attributes are those of a depthwise convolution: before DepthwiseShape, which divides by
/// the stride.
void check_depthwise_attrs(const char* op, const Attrs& attrs);
/// Throws unless x is (N, H, W, C) f32 or bf16, w fits it and the attributes are in range; returns the
/// output's spec.
TensorSpec check_depthwise(const char* op, const Attrs& attrs, const TensorSpec& x, const TensorSpec& w);

/// CPU: images are dealt with in this many groups, each with its own partial weight gradient: few enough that
/// the partials are small beside the tensors, and a function of the shape only.
inline int64_t depthwise_groups(const DepthwiseShape& d) {
  const int64_t few = d.images * d.out_height * d.out_width / (8 * d.taps());
  return std::clamp<int64_t>(few, 1, std::min<int64_t>(d.images, 64));
}

}  // namespace gm
