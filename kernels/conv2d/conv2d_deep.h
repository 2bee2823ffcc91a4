// 1x1 convolutions of many channels in bf16, whose input may be scaled by a factor of each image and channel:
// which ones our kernel serves, and how it cuts them. Functions of the shape alone. The kernel:
// conv2d_deep.cuh.
#pragma once
#include "kernels/common/card_limits.h"
#include "kernels/common/ceil_div.h"
#include "kernels/conv2d/conv2d_pointwise.h"

namespace gm {

constexpr int kDeepPixels = 128;   // of a tile
constexpr int kDeepChannels = 32;  // of C, of a stage
constexpr int kDeepPitch = 5;  // units of a row of a stage: odd, so that eight rows lie in different banks
constexpr int kDeepGatePitch = 36;  // factors of an image in a stage, with what keeps images apart
constexpr int kDeepStages = 3;      // in shared memory, of which two are under way

/// Tiles of 128 pixels x `filters()` of the K channels; a warp owns 32 pixels x 8 n channels.
struct DeepTiles : Pointwise {
  int image_pixels = 1;         // of an image, which has a row of factors
  int n = 0;                    // 4, 6, 8 or 10
  int columns = 1, slices = 1;  // of the K channels: warps side by side, blocks
  int tiles = 0, stages = 0;    // of pixels, of the C channels
  int images = 0;               // that a tile meets, at most; 0: no factors

  constexpr int filters() const { return 8 * n * columns; }
  constexpr int threads() const { return kDeepPixels * columns; }
  constexpr int stage_units() const {
    return (kDeepPixels + filters()) * kDeepPitch + images * kDeepGatePitch / 4;
  }
  constexpr size_t shared_bytes() const {
    return size_t{16} * static_cast<size_t>(kDeepStages * stage_units());
  }
};

/// Nothing where other kernels serve the convolution. scaled: with factors.
inline std::optional<DeepTiles> deep_conv(const ConvGeometry& g, bool scaled) {
  const auto product = pointwise(g);
  if (!product) return {};
  DeepTiles p{*product};
  constexpr int kMost = 10;  // registers
  const int eights = p.out_units();
  p.columns = eights > kMost ? 2 : 1;
  p.slices = ceil_div(eights, kMost * p.columns);
  p.n = std::max(4, 2 * ceil_div(ceil_div(eights, p.slices * p.columns), 2));
  p.tiles = ceil_div(p.pixels, kDeepPixels);
  p.stages = ceil_div(p.c, kDeepChannels);
  p.image_pixels = static_cast<int>(g.oh * g.ow);
  p.images = scaled ? static_cast<int>(std::min<int64_t>(g.n, (kDeepPixels - 1) / p.image_pixels + 2)) : 0;
  if (p.shared_bytes() > kSmallestShared || int64_t{p.tiles} * p.slices > INT32_MAX) return {};
  return p;
}

}  // namespace gm
