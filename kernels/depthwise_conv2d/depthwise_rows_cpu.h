// Depthwise convolution, row by row: what every CPU op with a depthwise convolution inside is made of.
//
// A row is the unit because rows are what a fused op interleaves (normalise, convolve, store) while they are
// in L1. Results are f32 rows; weights are f32 [kernel][kernel][C]; images (height, width, C) of T, which is
// float or bf16.
#pragma once
#include <cstdint>

#include "kernels/common/dtype.h"
#include "kernels/depthwise_conv2d/depthwise_conv2d.h"

namespace gm::GM_CPU_NS {

/// Weights as f32 [taps][C], turned by 180 degrees for the input gradient.
template <class T>
void dw_weights(const T* w, const DepthwiseShape& d, bool turned, float* out);

/// Output row oh of one image.
template <class T>
void dw_forward_row(const T* x, const float* w, const DepthwiseShape& d, int64_t oh, float* row);

/// Row ih of one image's dx. w: dw_weights, turned at stride 1, as they are at stride 2.
void dw_gradient_row(const float* dy, const float* w, const DepthwiseShape& d, int64_t ih, float* row);

/// Adds one image's products to dw, f32 [taps][C].
template <class T>
void dw_weight_gradient(const T* x, const float* dy, const DepthwiseShape& d, float* dw);

/// Where a finished f32 row goes: copied or added, rounded to T. Does nothing when it is already there.
template <class T>
inline void dw_put_row(const float* row, T* out, int64_t n, bool accumulate) {
  if (accumulate)
    for (int64_t i = 0; i < n; ++i) out[i] = from_float<T>(to_float(out[i]) + row[i]);
  else if (static_cast<const void*>(row) != static_cast<const void*>(out))
    for (int64_t i = 0; i < n; ++i) out[i] = from_float<T>(row[i]);
}

}  // namespace gm::GM_CPU_NS
