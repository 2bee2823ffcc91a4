#include "kernels/mbconv/mbconv_rows_cpu.h"

#include "kernels/common/dispatch.h"
#include "kernels/depthwise_conv2d/depthwise_rows_cpu.h"

namespace gm::GM_CPU_NS {

void mb_depthwise_weights(const View& w, const DepthwiseShape& d, float* out) {
  float_switch(w.dtype(), [&](auto zero) { dw_weights(w.as<decltype(zero)>(), d, false, out); });
}

void mb_depthwise(const DepthwiseShape& d, const float* e, const float* w, float* out) {
  const int64_t row = d.out_width * d.channels;
  for (int64_t oh = 0; oh < d.out_height; ++oh) dw_forward_row(e, w, d, oh, out + oh * row);
}

}  // namespace gm::GM_CPU_NS
