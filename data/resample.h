// One affine resampling of an image: every geometric step of an augmentation in a single pass.
#pragma once
#include "data/image.h"

namespace gm {

/// What lies outside an image: its edge pixel repeated, the image mirrored about its edge, or black.
enum class Border { edge, reflect, zero };

/// Source position (x, y) of the output position (u, v), both in pixels with pixel k spanning [k, k+1):
/// x = xx u + xy v + x0, y = yx u + yy v + y0.
struct Affine {
  double xx = 1, xy = 0, x0 = 0;
  double yx = 0, yy = 1, y0 = 0;
};

/// Fills out (size, size, 3), 0..255 (H, W, C). Each output pixel is the mean of a grid of bilinear taps
/// spread over its own (rotated) area, ceil(ratio) of them a side, ratio_x and ratio_y being the source
/// pixels per output pixel along each axis. That is bilinear interpolation at ratio <= 1, exact area
/// averaging at whole ratios without rotation, and area averaging up to sampling elsewhere. Above a ratio of
/// 4 whole source pixels are averaged first, so that the cost stays bounded.
void resample(const Image& image, const Affine& affine, double ratio_x, double ratio_y, Border fill, int size,
              float* out);

}  // namespace gm
