// 1x1 convolutions in bf16 whose weights fit the registers of a block: which ones, and how they are cut.
// Functions of the shape alone, shared by conv2d, by conv_bn_act's expanding convolutions and by their tests.
// The walk over the pixels and conv2d's kernel: conv2d_pointwise.cuh.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "kernels/common/ceil_div.h"
#include "kernels/conv2d/conv2d.h"

namespace gm {

/// C -> K channels at every pixel. A unit is 8 channels, 16 bytes; a pixel of a tile in shared memory takes
/// an odd number of them, so that eight neighbouring pixels lie in different banks.
struct Pointwise {
  int pixels = 0, c = 0, k = 0;
  constexpr int in_units() const { return c / 8; }
  constexpr int out_units() const { return k / 8; }
  constexpr int in_pitch() const { return in_units() | 1; }
  constexpr int out_pitch() const { return out_units() | 1; }
};

/// Nothing where the convolution is no plain product over pixels of whole units.
inline std::optional<Pointwise> pointwise(const ConvGeometry& g) {
  if (!g.pointwise() || g.dtype != DType::bf16 || g.c % 8 != 0 || g.k % 8 != 0) return {};
  if (g.k > (1 << 13) || g.weights() > INT32_MAX || g.out_pixels() > INT32_MAX - 1024) return {};
  return Pointwise{static_cast<int>(g.out_pixels()), static_cast<int>(g.c), static_cast<int>(g.k)};
}

constexpr int kPointwisePixels = 64;  // of a tile
constexpr int kPointwiseWarps = 8;    // of a block, at most
constexpr int kPointwiseSteps = 16;   // of 16 of the C channels, at most: their weights stay in registers
/// Blocks of all warps whose registers a multiprocessor holds: at most 80, 128 or 255 a thread.
constexpr int pointwise_blocks(int steps) { return steps <= 2 ? 3 : steps <= 8 ? 2 : 1; }

/// How the work is dealt: a warp owns a run of 32 of the K channels.
struct PointwiseTiles : Pointwise {
  int steps = 0;              // of the depth, 16 of the C channels each
  int slices = 0;             // of the K channels
  int columns = 0, rows = 0;  // warps of a block: side by side along the channels, along the pixels
  int tiles = 0;

  constexpr int warps() const { return columns * rows; }
  constexpr int tile_units() const { return kPointwisePixels * in_units(); }
  constexpr int held_units() const { return kPointwisePixels * in_pitch(); }
  /// Two tiles of x.
  constexpr size_t tiles_bytes() const { return size_t{16} * static_cast<size_t>(2 * held_units()); }
};

/// Nothing where a warp's weights are more than its registers.
inline std::optional<PointwiseTiles> pointwise_tiles(const Pointwise& product) {
  PointwiseTiles p{product};
  p.steps = ceil_div(p.c, 16);
  if (p.steps > kPointwiseSteps) return {};
  const int groups = ceil_div(p.k, 32);
  p.slices = ceil_div(groups, kPointwiseWarps);
  p.columns = ceil_div(groups, p.slices);
  p.rows = p.columns > 4 ? 1 : p.columns > 2 ? 2 : 4;
  p.tiles = ceil_div(p.pixels, kPointwisePixels);
  return p;
}

/// Nothing where the general kernels serve a convolution.
inline std::optional<PointwiseTiles> pointwise_conv(const ConvGeometry& g) {
  const auto product = pointwise(g);
  return product ? pointwise_tiles(*product) : std::nullopt;
}

}  // namespace gm
