// Scales every channel of every image: the last step of squeeze-excite.
//   y[n,h,w,c] = x[n,h,w,c] * s[n,c]
//   dx = dy * s            ds[n,c] = sum_hw dy[n,h,w,c] * x[n,h,w,c]
// in[0]  x  (N, H, W, C) f32 or bf16
// in[1]  s  (N, C) f32
// out[0] y  (N, H, W, C) dtype of x
// Backward reads x and s; one pass over x and dy makes both gradients.
#pragma once
