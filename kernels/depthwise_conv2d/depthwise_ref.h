// Depthwise convolution in doubles: the oracle of every op with one inside.
#pragma once
#include <vector>

#include "kernels/depthwise_conv2d/depthwise_conv2d.h"

namespace gm::ref {

/// Calls f(input index, weight index, output index) for every product of the convolution.
template <class F>
void dw_products(const DepthwiseShape& d, F&& f) {
  for (int64_t n = 0; n < d.images; ++n)
    for (int64_t oh = 0; oh < d.out_height; ++oh)
      for (int64_t ow = 0; ow < d.out_width; ++ow)
        for (int r = 0; r < d.kernel; ++r)
          for (int s = 0; s < d.kernel; ++s) {
            const int64_t ih = oh * d.stride + r - d.pad_top, iw = ow * d.stride + s - d.pad_left;
            if (ih < 0 || iw < 0 || ih >= d.height || iw >= d.width) continue;
            for (int64_t c = 0; c < d.channels; ++c)
              f(((n * d.height + ih) * d.width + iw) * d.channels + c, (r * d.kernel + s) * d.channels + c,
                ((n * d.out_height + oh) * d.out_width + ow) * d.channels + c);
          }
}
inline void dw_forward(const DepthwiseShape& d, const double* x, const double* w, double* y) {
  std::fill_n(y, d.images * d.out_image(), 0.);
  dw_products(d, [&](int64_t i, int64_t k, int64_t o) { y[o] += x[i] * w[k]; });
}
inline void dw_backward(const DepthwiseShape& d, const double* x, const double* w, const double* dy,
                        std::vector<double>& dx, std::vector<double>& dw) {
  dx.assign(d.images * d.in_image(), 0);
  dw.assign(d.taps() * d.channels, 0);
  dw_products(d, [&](int64_t i, int64_t k, int64_t o) {
    dx[i] += w[k] * dy[o];
    dw[k] += x[i] * dy[o];
  });
}

}  // namespace gm::ref
