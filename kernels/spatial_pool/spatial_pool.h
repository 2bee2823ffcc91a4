// Average and maximum over the channels of each pixel: the input of CBAM's spatial attention.
//   m[n,h,w,:] = (1/C sum_c x[n,h,w,c], max_c x[n,h,w,c])
//   dx[n,h,w,c] = davg[n,h,w] / C + (dmax[n,h,w] at the arg-max, 0 elsewhere)
// attrs  max_first  0: (average, maximum), as most Keras versions; 1: (maximum, average), as CBAM's authors
// in[0]    x       (N, H, W, C) f32 or bf16
// out[0]   m       (N, H, W, 2) f32 whatever the dtype of x
// saved[0] argmax  (N, H, W) i32: the first largest channel
// Backward reads neither x nor m.
#pragma once
#include "kernels/common/attrs.h"
#include "kernels/common/view.h"

namespace gm {

/// Where the average stands in the last dimension of m; the maximum has the other place.
inline int average_place(const Attrs& attrs) { return attrs.geti("max_first", 0) ? 1 : 0; }

/// Shapes of m and argmax for x (N, H, W, C).
inline TensorSpec channel_pool_spec(const TensorSpec& x) {
  return {{x.shape[0], x.shape[1], x.shape[2], 2}, DType::f32};
}
inline TensorSpec channel_argmax_spec(const TensorSpec& x) {
  return {{x.shape[0], x.shape[1], x.shape[2]}, DType::i32};
}

}  // namespace gm
