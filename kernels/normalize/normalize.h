// The input scaling that lives inside the model.
//   y = (x - mean_c) / std_c
// in f32, subtract then divide: Keras's x / 128 - 1 is mean 128, std 128 and exact for 8-bit pixels.
// attrs  mean0..mean3, std0..std3  per channel, in units of the pixels (default 0 and 1)
//        bf16                      1: y is bf16
// in[0]  x  (N, H, W, C) pixels 0..255, f32 or u8, C <= 4
// out[0] y  (N, H, W, C) f32 or bf16
// Backward (f32 pixels only; saliency maps) reads nothing: dx = dy / std_c.
#pragma once
#include <string>

#include "kernels/common/attrs.h"

namespace gm {

constexpr int kMaxPixelChannels = 4;

/// Mean and standard deviation of each channel, as kernel parameters.
struct PixelScaling {
  float mean[kMaxPixelChannels], std[kMaxPixelChannels];
};
inline PixelScaling pixel_scaling(const Attrs& attrs) {
  PixelScaling s{};
  for (int c = 0; c < kMaxPixelChannels; ++c) {
    s.mean[c] = static_cast<float>(attrs.get("mean" + std::to_string(c), 0));
    s.std[c] = static_cast<float>(attrs.get("std" + std::to_string(c), 1));
  }
  return s;
}

}  // namespace gm
