// Images as files hold them -> the network's input: every geometric step of an augmentation as one affine
// sampling, every colour step as one 3x3 matrix, then the input scaling.
//
//   window(i, j) = mean of step_x x step_y source pixels, outside ones by the border rule
//   p(u, v)      = mean over a grid of taps_x x taps_y bilinear taps spread over the output pixel's own
//                  (rotated) area of the window; tap (a, b) lies at the window position of
//                  (u + (a + 1/2) / taps_x, v + (b + 1/2) / taps_y)
//   q            = clamp(M p + grey_share mean_grey(p), 0, 255); without colour q = p
//   out          = (q - mean_c) / std_c
// mean_grey is over all output pixels of the image, Rec. 601 weights.
//
// attrs  size                   side of the square output, px
//        colour                 0: no sample has colour; 1 by default
//        mean0..2, std0..2      input scaling (default 0 and 1: the output is 0..255)
//        bf16                   1: out is bf16
// in[0]  images  (bytes) u8     RGB pixels of all images, each (height, width, 3) without gaps. Its memory
//        must be readable up to the next multiple of 4 bytes: CUDA loads whole words.
// in[1]  samples (N, sizeof(AugmentSample)) u8
// out[0] (N, size, size, 3) f32 or bf16
// No gradient. The samples come from the host (data/transform.h): kernels draw nothing and check nothing.
#pragma once
#include <cstdint>

#include "kernels/common/dtype.h"

namespace gm {

/// What lies outside an image: its edge pixel repeated, the image mirrored about its edge, or black.
enum class Border : int32_t { edge, reflect, zero };

/// Source position (x, y) of the output position (u, v), both in pixels with pixel k spanning [k, k+1):
/// x = xx u + xy v + x0, y = yx u + yy v + y0.
struct Affine {
  double xx = 1, xy = 0, x0 = 0;
  double yx = 0, yy = 1, y0 = 0;
};

/// One image and what becomes of it; read by the kernels as it lies in memory.
struct AugmentSample {
  int64_t offset = 0;  // bytes from the start of in[0] to the image
  Affine to_window;    // output pixels -> window pixels, whose centres are whole numbers there
  double grey_share = 0;
  float colour[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1};  // M, row by row
  int32_t recolour = 0;                           // 0: M and grey_share are not applied, nothing is clamped
  int32_t width = 0, height = 0;
  Border border = Border::edge;
  int32_t window_x = 0, window_y = 0;           // source position of the window's corner
  int32_t window_width = 0, window_height = 0;  // in window pixels; taps need one to the right and below
  int32_t step_x = 1, step_y = 1;               // source pixels per window pixel
  int32_t taps_x = 1, taps_y = 1;
};
static_assert(sizeof(AugmentSample) == 152 && sizeof(AugmentSample) % sizeof(double) == 0);

/// Taps of a sample never exceed this a side: above a ratio of 4 the window shrinks.
constexpr int kMaxTaps = 4;

/// The geometry of a sample, without colour and offset. ratio_x and ratio_y are the source pixels per output
/// pixel along each axis; taps are ceil(ratio) a side. That is bilinear interpolation at ratio <= 1, exact
/// area averaging at whole ratios without rotation, from whole source pixels on, and area averaging up to
/// sampling elsewhere. Above a ratio of 4 whole source pixels are averaged first, so that the cost stays
/// bounded.
AugmentSample place_sample(int width, int height, const Affine& affine, double ratio_x, double ratio_y,
                           Border border, int size);

/// Source index inside [0, n) that stands for `i`, or -1 for black.
template <class Int>
GM_HOST_DEVICE inline Int inside_index(Int i, Int n, Border border) {
  if (i >= 0 && i < n) return i;
  if (border == Border::zero) return -1;
  if (border == Border::edge) return i < 0 ? 0 : n - 1;
  const Int period = 2 * n, m = ((i % period) + period) % period;  // d c b a | a b c d | d c b a
  return m < n ? m : period - 1 - m;
}

}  // namespace gm
