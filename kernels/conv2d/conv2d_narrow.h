// Which convolutions our kernels for few channels serve, and how they cut them: functions of the shape alone,
// shared by the op's description, its kernels and their tests. The kernels: conv2d_narrow.cuh.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "kernels/common/card_limits.h"
#include "kernels/common/ceil_div.h"
#include "kernels/conv2d/conv2d.h"

namespace gm {

/// A convolution as the kernel sees it, and its tiles. Sizes in pixels; a unit is 8 channels, 16 bytes. The
/// gradient of the data is one as well, of dy with turned filters: its outputs are the pixels
/// (y step + y0, x step + x0) of dx, `stride` x `stride` such problems for a convolution with a stride.
struct NarrowConv {
  int h = 0, w = 0, c = 0;    // an input image
  int oh = 0, ow = 0, k = 0;  // an output image
  int rows = 0, columns = 0;  // taps
  int stride = 1;
  int top = 0, left = 0;                                      // padding, negative where taps start inside
  int step = 1, y0 = 0, x0 = 0, out_h = 0, out_w = 0;         // where the outputs lie
  int kernel = 0, tap_row = 0, tap_column = 0, tap_step = 1;  // tap (i, j): w[...][tap_row + i tap_step][...]
  // Channels of an image that has less than 8, else 0. A row of the taps is then one tap of columns times as
  // many channels, which are neighbours in memory: 5x5 of three are 5 x 1 taps of 15.
  int thin_channels = 0;
  bool turned = false;        // w is (c, kernel, kernel, k)
  int units = 0;              // of a pixel
  int chunks = 0, depth = 0;  // units of a patch; pairs of them
  int m = 0, n = 0;           // tiles of 16 pixels, of 8 filters of a warp
  int slices = 0;             // of the filters
  int tile_w = 0, tile_h = 0, in_w = 0, in_h = 0;
  int across = 0;                          // logarithm of the eights of pixels in a row of a tile
  int pitch = 0, half = 0, row_units = 0;  // units of a pixel's place; places of even columns; units of a row
  int tiles_x = 0, tiles_y = 0, tiles = 0;

  // A product's 16 pixels are two rows of eight. Tile `index` of them in a tile of outputs:
  constexpr int row_of(int index) const { return index >> across << 1; }
  constexpr int column_of(int index) const { return (index & ((1 << across) - 1)) << 3; }

  constexpr int tile_units() const { return in_h * row_units; }
  constexpr int weight_units() const { return depth * n * 16; }
  constexpr int place_units() const { return (depth + 1) / 2; }
  /// Weights, where a chunk lies (one word each), two tiles.
  size_t shared_bytes() const {
    return size_t{16} * static_cast<size_t>(weight_units() + place_units() + 2 * tile_units());
  }
};

constexpr int kNarrowWarps = 4, kNarrowThreads = 32 * kNarrowWarps;
constexpr size_t kNarrowShared = 81 << 10;  // two blocks on sm_80, one on sm_86

/// Tiles of 8 filters of a slice: those that divide the filters best, of equals the most.
constexpr int narrow_filters(int64_t k) {
  const int64_t tiles = ceil_div(k, 8);
  int best = 3;
  for (int n : {4, 6, 8})
    if (round_up(tiles, n) <= round_up(tiles, best)) best = n;
  return best;
}

/// The problem in tiles of tile_w x tile_h outputs.
inline NarrowConv narrow_cut(NarrowConv p, int64_t images, int tile_w, int tile_h) {
  p.tile_w = tile_w, p.tile_h = tile_h, p.across = 0;
  while (8 << p.across < tile_w) ++p.across;
  const int stride_x = p.thin_channels ? 1 : p.stride;  // each output has its own row of taps
  p.in_w = (tile_w - 1) * stride_x + p.columns;
  p.in_h = (tile_h - 1) * p.stride + p.rows;
  p.half = ceil_div(p.in_w, stride_x);
  p.row_units = p.half * stride_x * p.pitch;
  p.tiles_x = ceil_div(p.ow, tile_w);
  p.tiles_y = ceil_div(p.oh, tile_h);
  p.tiles = static_cast<int>(images) * p.tiles_x * p.tiles_y;
  return p;
}

/// The problem with its tiles; nothing where none fit.
inline std::optional<NarrowConv> narrow_tiles(NarrowConv p, int64_t images) {
  p.units = ceil_div(p.c, 8);
  p.chunks = p.rows * p.columns * p.units;
  p.depth = ceil_div(p.chunks, 2);
  p.pitch = p.units | 1;
  p.n = narrow_filters(p.k);
  p.slices = ceil_div(ceil_div(p.k, 8), p.n);
  std::optional<NarrowConv> best;
  double least = 0;
  for (int m : {4, 2}) {
    if (m * p.n > 16) continue;  // registers
    for (int tile_w : {16, 8, 32}) {
      NarrowConv t = narrow_cut(p, images, tile_w, 16 * m * kNarrowWarps / tile_w);
      t.m = m;
      if (t.shared_bytes() > kNarrowShared) continue;
      // Reads of shared memory in a tile's product, and what its loads cost beside.
      const double cost =
          double(t.tiles) * (kNarrowWarps * p.depth * (4 * m + 2 * p.n) + 0.5 * t.in_w * t.in_h * p.units);
      if (!best || cost < least) best = t, least = cost;
    }
  }
  return best;
}

/// True where the shapes are ours: bf16, a real kernel, stride 1 or 2. Channels are whole units, or those of
/// an image, which is read in words; pixels and the values of one image are counted in 32 bits.
constexpr bool narrow_shape(const ConvGeometry& g) {
  return g.dtype == DType::bf16 && g.kernel > 1 && g.kernel <= 7 && g.stride <= 2 && g.k % 8 == 0 &&
         (g.c % 8 == 0 || (g.c < 8 && g.in_pixels() * g.c % 2 == 0)) && g.c <= 64 && g.k <= 256 &&
         std::max<int64_t>(g.n, 256) * std::max(g.h * g.w, g.oh * g.ow) < (int64_t{1} << 31);
}

/// The forward pass. Nothing where the general kernels serve it.
inline std::optional<NarrowConv> narrow_forward(const ConvGeometry& g) {
  if (!narrow_shape(g)) return {};
  auto i = [](int64_t v) { return static_cast<int>(v); };
  NarrowConv p{.h = i(g.h), .w = i(g.w), .c = i(g.c), .oh = i(g.oh), .ow = i(g.ow), .k = i(g.k)};
  p.rows = p.columns = p.kernel = i(g.kernel);
  if (p.c < 8) p.thin_channels = p.c, p.c *= p.columns, p.columns = 1;
  p.stride = i(g.stride), p.top = i(g.pad_top), p.left = i(g.pad_left);
  p.out_h = p.oh, p.out_w = p.ow;
  return narrow_tiles(p, g.n);
}

/// The gradient of the data at the pixels (y stride + y0, x stride + x0), y0, x0 < stride, which may be none.
inline std::optional<NarrowConv> narrow_data(const ConvGeometry& g, int y0, int x0) {
  if (!narrow_shape(g) || g.c % 8 != 0) return {};
  auto i = [](int64_t v) { return static_cast<int>(v); };
  const int stride = i(g.stride), kernel = i(g.kernel);
  NarrowConv p{.h = i(g.oh), .w = i(g.ow), .c = i(g.k), .k = i(g.c)};
  p.out_h = i(g.h), p.out_w = i(g.w);
  p.step = stride, p.y0 = y0, p.x0 = x0;
  p.oh = ceil_div(p.out_h - y0, stride);
  p.ow = ceil_div(p.out_w - x0, stride);
  p.kernel = kernel, p.turned = true, p.tap_step = -stride;
  // Taps r = r0, r0 + stride, ... meet these pixels; the last one meets the first row of dy.
  auto axis = [&](int place, int pad, int& taps, int& last, int& before) {
    const int r0 = (place + pad) % stride;
    taps = ceil_div(kernel - r0, stride);
    last = r0 + (taps - 1) * stride;
    before = -((place + pad - last) / stride);
  };
  axis(y0, i(g.pad_top), p.rows, p.tap_row, p.top);
  axis(x0, i(g.pad_left), p.columns, p.tap_column, p.left);
  if (p.oh == 0 || p.ow == 0) return p;
  return narrow_tiles(p, g.n);
}
/// Every pixel's gradient of the data is ours.
inline bool narrow_data(const ConvGeometry& g) {
  for (int y0 = 0; y0 < g.stride; ++y0)
    for (int x0 = 0; x0 < g.stride; ++x0)
      if (!narrow_data(g, y0, x0)) return false;
  return true;
}

constexpr int kGradientPairs = 4;  // of a warp at most: 64 channels of taps x 8 n filters, 16 n sums a thread
constexpr int kGradientBlocks = 4;  // of a multiprocessor, at most: registers hold so many of each kernel

/// The gradient of the weights: tiles of outputs are dealt to walkers, each of which leaves a partial sum.
struct NarrowGradient {
  NarrowConv conv;                       // the forward pass, with tiles of its own
  int n = 0, slices = 0;                 // tiles of 8 filters of a block; slices of the filters
  int m = 0, pairs = 0, row_slices = 0;  // pairs of chunks of a warp, of a block; slices of the pairs

  constexpr int pixels() const { return conv.tile_w * conv.tile_h; }
  /// Units of a pixel's filters: an odd number, as those of its channels.
  constexpr int filter_pitch() const { return n | 1; }
  constexpr int tile_units() const { return conv.tile_units() + pixels() * filter_pitch(); }
  size_t shared_bytes() const { return size_t{16} * static_cast<size_t>(2 * tile_units()); }
  /// On a card that holds so many blocks at once; two tiles each at least, as one is copied meanwhile.
  constexpr int walkers(int blocks) const {
    const int most = std::max(1, blocks / (slices * row_slices));
    return ceil_div(conv.tiles, std::max(2, ceil_div(conv.tiles, most)));
  }
  /// On any card.
  size_t partial_bytes(const ConvGeometry& g) const {
    return sizeof(float) *
           static_cast<size_t>(walkers(kGradientBlocks * kSummingMultiprocessors) * g.weights());
  }
};

/// Nothing where the general kernels serve the gradient.
inline std::optional<NarrowGradient> narrow_gradient(const ConvGeometry& g) {
  constexpr int kPixels = 128;
  const auto forward = narrow_forward(g);
  if (!forward) return {};
  NarrowGradient p{*forward};
  NarrowConv& c = p.conv;
  const int filters = ceil_div(c.k, 8);
  p.n = round_up(filters, 4) <= round_up(filters, 3) ? 4 : 3;
  p.slices = ceil_div(filters, p.n);
  p.row_slices = ceil_div(c.depth, kNarrowWarps * kGradientPairs);
  p.pairs = ceil_div(c.depth, p.row_slices);
  p.m = std::max(2, ceil_div(p.pairs, kNarrowWarps));
  NarrowConv best;
  int64_t least = 0;
  for (int tile_w : {16, 8, 32}) {
    const NarrowConv t = narrow_cut(c, g.n, tile_w, kPixels / tile_w);
    const int64_t cost = int64_t{t.tiles} * (t.tile_units() + kPixels * p.n);
    if (!best.tiles || cost < least) best = t, least = cost;
  }
  c = best;
  if (p.shared_bytes() > kNarrowShared) return {};
  return p;
}

}  // namespace gm
