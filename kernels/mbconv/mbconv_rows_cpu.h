// The depthwise convolution inside mbconv on the CPU, apart from the products: each has its own vector type.
#pragma once
#include "kernels/common/view.h"
#include "kernels/depthwise_conv2d/depthwise_conv2d.h"

namespace gm::GM_CPU_NS {

/// w (kernel, kernel, E) as f32.
void mb_depthwise_weights(const View& w, const DepthwiseShape& d, float* out);
/// All rows of one image or band of it, without bias. e: f32 (height, width, E); out: (out_height, out_width,
/// E).
void mb_depthwise(const DepthwiseShape& d, const float* e, const float* w, float* out);

}  // namespace gm::GM_CPU_NS
