// Scales every pixel of every image: the last step of CBAM's spatial attention.
//   y[n,h,w,c] = x[n,h,w,c] * m[n,h,w]
//   dx = dy * m            dm[n,h,w] = sum_c dy[n,h,w,c] * x[n,h,w,c]
// in[0]  x  (N, H, W, C) f32 or bf16
// in[1]  m  (N, H, W, 1) f32
// out[0] y  (N, H, W, C) dtype of x
// Backward reads x and m; one pass over x and dy makes both gradients.
#pragma once
