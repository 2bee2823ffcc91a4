// Average and maximum over the pixels of each image and channel in one pass: the input of CBAM's channel
// attention.
//   avg[n,c] = 1/(H W) sum_hw x[n,h,w,c]            max[n,c] = max_hw x[n,h,w,c]
//   dx[n,h,w,c] = davg[n,c] / (H W) + (dmax[n,c] at the arg-max, 0 elsewhere)
// in[0]    x       (N, H, W, C) f32 or bf16
// out[0]   avg     (N, C) f32 whatever the dtype of x
// out[1]   max     (N, C) f32
// saved[0] argmax  (N, C) i32: h * W + w of the first largest pixel
// Backward reads neither x nor the outputs; either gradient may be absent.
#pragma once
