// Global pooling over the pixels of each image and channel.
//   avg: y[n,c] = 1/(H W) sum_hw x[n,h,w,c]          dx[n,h,w,c] = dy[n,c] / (H W)
//   max: y[n,c] = max_hw x[n,h,w,c]                  dx = dy at the arg-max, 0 elsewhere
// attrs  kind  0 average, 1 maximum
// in[0]    x       (N, H, W, C) f32 or bf16
// out[0]   y       (N, C) f32 whatever the dtype of x: what follows is tiny and wants the accuracy
// saved[0] argmax  (N, C) i32, maximum only: h * W + w of the first largest pixel
// Backward reads neither x nor y.
#pragma once
#include "kernels/common/attrs.h"

namespace gm {

enum class PoolKind : int { average = 0, maximum = 1 };

inline PoolKind pool_kind(const Attrs& attrs) { return static_cast<PoolKind>(attrs.geti("kind", 0)); }

}  // namespace gm
