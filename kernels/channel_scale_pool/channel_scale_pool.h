// Channel scale fused with the pooling over channels that follows it: channel attention's last step and
// spatial attention's first in one pass (CBAM).
//   y[n,h,w,c] = x[n,h,w,c] * s[n,c]
//   m[n,h,w,:] = (1/C sum_c y[n,h,w,c], max_c y[n,h,w,c])
//   g  = dy + davg / C + (dmax at the arg-max, 0 elsewhere)        the whole gradient of y
//   dx = g * s            ds[n,c] = sum_hw g[n,h,w,c] * x[n,h,w,c]
// attrs  max_first  order of m, as in spatial_pool
// in[0]    x       (N, H, W, C) f32 or bf16
// in[1]    s       (N, C) f32
// out[0]   y       (N, H, W, C) dtype of x
// out[1]   m       (N, H, W, 2) f32, of y before its rounding
// saved[0] argmax  (N, H, W) i32: the first largest channel of y
// Backward reads x and s; one pass over x and dy makes both gradients. dy or dm may be absent.
#pragma once
#include "kernels/spatial_pool/spatial_pool.h"
