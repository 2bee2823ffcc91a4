// Dense 2-D convolution with a square kernel, NHWC.
//   y[n,oy,ox,k] = act( bias[k] + sum over r,s,c of
//                       x[n, oy*stride - pad_top + r, ox*stride - pad_left + s, c] * w[k,r,s,c] )
//                  + residual[n,oy,ox,k]
//   (x is 0 outside the image)
// in[0]  x    (N, H, W, C)   f32 or bf16
// in[1]  w    (K, R, R, C)   dtype of x; parameter: its gradient is f32
// in[2]  bias (K)            f32, optional; parameter
// in[3]  residual            like y, optional
// out[0] y    (N, OH, OW, K) dtype of x;  OH = (H + pad_top + pad_bottom - R) / stride + 1
// Attributes: kernel, stride, pad_top, pad_left, pad_bottom, pad_right (explicit, so that TensorFlow's
// asymmetric SAME is the caller's arithmetic), act (enum Act). The activation is an inference epilogue: the
// backward throws gm::Error when act is not none. CUDA: general (1: our kernels for few channels or 1x1 do
// not stand in for the general ones). Backward reads x and w:  dx = conv^T(dy, w),  dw[k,r,s,c] = sum of
// dy * shifted x,  dbias[k] = sum of dy, dresidual = dy.
#pragma once
#include <cstdint>
#include <span>

#include "kernels/activation/activation.h"
#include "kernels/common/attrs.h"
#include "kernels/common/op.h"
#include "kernels/common/view.h"

namespace gm {

/// Output size of one axis of a convolution or pooling.
constexpr int64_t conv_out(int64_t size, int64_t kernel, int64_t stride, int64_t pad_lo, int64_t pad_hi) {
  return (size + pad_lo + pad_hi - kernel) / stride + 1;
}

/// One dense convolution problem in plain numbers.
struct ConvGeometry {
  int64_t n = 0, h = 0, w = 0, c = 0;  // input
  int64_t k = 0, kernel = 0, stride = 1;
  int64_t pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
  int64_t oh = 0, ow = 0;
  DType dtype = DType::f32;

  int64_t taps() const { return kernel * kernel * c; }  // length of one filter
  int64_t weights() const { return k * taps(); }        // elements of w
  int64_t in_pixels() const { return n * h * w; }
  int64_t out_pixels() const { return n * oh * ow; }
  double macs() const { return double(out_pixels()) * double(k) * double(taps()); }
  /// 1x1, stride 1, no padding: a matrix product over pixels.
  bool pointwise() const {
    return kernel == 1 && stride == 1 && !pad_top && !pad_left && !pad_bottom && !pad_right;
  }
  bool operator==(const ConvGeometry&) const = default;
};

/// Reads the attributes and shapes above; throws gm::Error naming what does not fit.
ConvGeometry conv_geometry(const Attrs& attrs, std::span<const TensorSpec> in);
/// Same for views.
inline ConvGeometry conv_geometry(const Attrs& attrs, const View& x, const View& w) {
  const TensorSpec specs[] = {x.spec, w.spec};
  return conv_geometry(attrs, specs);
}
/// Scratch bytes of one pass of conv2d.
size_t conv_workspace(Backend backend, Pass pass, const ConvGeometry& g);
/// in[3], null when it is not given.
inline View conv_residual(std::span<const View> in) { return in.size() > 3 ? in[3] : View(); }

}  // namespace gm
