// Depthwise convolution on the GPU: how its kernels work, for every op with one inside, and what they share.
//
// Fast kernels (3x3 and 5x5, stride 1 and 2):
//   forward: a thread owns 2 channels and a strip of 4, 6 or 7 output columns and marches down a band of
//   rows. Each input row is added to the open output rows that it belongs to, while the loads of the next row
//   are in flight; lanes of a warp are neighbouring channels, so a load of a warp is whole sectors, and the
//   columns that two strips share come from the first level cache. Open rows rotate by unrolling the march,
//   so no register is ever moved. Strips that fill the map (14 = 2 x 7) need no test of their inner columns.
//   backward, stride 1 in bf16 where strips fill the map: marches as well (depthwise_march_backward.cuh).
//   backward, the others (whole 16-byte vectors of channels): a block takes a slice of channels and walks
//   over tiles of an image (or of several small ones), in two phases with a barrier between them.
//     load: all threads bring the tile and its halo to shared memory by 16-byte vectors, several in flight,
//     and form the gradient before batch norm and activation on the way, so that each pixel's is computed
//     once.
//     compute: a thread owns 1 or 2 channels and strips of 4 columns and marches down a band of rows with a
//     window of rows in registers (slot = row mod K); pixels of x are fetched a row ahead.
// Positions of a tile are those of m (see depthwise_backward.cu).
// Generic kernels (depthwise_any.cuh): any kernel size and channel count, one pixel at a time.
#pragma once
#include "kernels/common/ceil_div.h"
#include "kernels/common/math.cuh"
#include "kernels/common/simt.h"
#include "kernels/depthwise_conv2d/depthwise_gpu.h"

namespace gm::GM_BACKEND_NS {

// Two blocks fit a multiprocessor of an RTX 3090, five an H100's; with the static memory of the sums it stays
// below the 48 KB that a launch gets unasked.
constexpr int kDwTileBytes = 36 * 1024;

/// a / b by one multiplication, for a * b below 2^32.
struct DwQuotient {
  unsigned factor;  // 0: b is 1
  explicit DwQuotient(int b)
      : factor(static_cast<unsigned>(((uint64_t{1} << 32) + static_cast<unsigned>(b) - 1) /
                                     static_cast<unsigned>(b))) {}
  __device__ __forceinline__ int of(int a) const {
    return factor ? static_cast<int>((static_cast<uint64_t>(static_cast<unsigned>(a)) * factor) >> 32) : a;
  }
};

/// What kernels need of DepthwiseShape, in 32 bits.
struct DwShape {
  int images, height, width, channels, out_height, out_width, kernel, stride, pad_top, pad_left, columns;
  DwShape(const DepthwiseShape& d, int columns)
      : images(int(d.images)),
        height(int(d.height)),
        width(int(d.width)),
        channels(int(d.channels)),
        out_height(int(d.out_height)),
        out_width(int(d.out_width)),
        kernel(d.kernel),
        stride(d.stride),
        pad_top(d.pad_top),
        pad_left(d.pad_left),
        columns(columns) {
    GM_CHECK(d.in_image() < (int64_t{1} << 31) && d.out_image() < (int64_t{1} << 31),
             "depthwise: image too large");
  }
};

/// Where a thread stands in its block: `column` channels of N across, `lane` of `lanes` such rows.
struct DwThread {
  int column, lane, lanes;
  int slice, first, c;  // channels of the slice, its first one and the thread's; c >= channels: past the last
  __device__ __forceinline__ DwThread(const DwShape& d, int n)
      : column(static_cast<int>(threadIdx.x) % d.columns),
        lane(static_cast<int>(threadIdx.x) / d.columns),
        lanes(static_cast<int>(blockDim.x) / d.columns),
        slice(d.columns * n),
        first(static_cast<int>(blockIdx.y) * slice),
        c(first + column * n) {}
};

/// The device's copy of a DepthwiseMarch.
struct DwMarch {
  int strips, bands, band_rows, units;
  DwQuotient by_strips, by_bands;
  DwMarch(const DepthwiseMarch& m)
      : strips(m.strips),
        bands(m.bands),
        band_rows(m.band_rows),
        units(static_cast<int>(m.units)),
        by_strips(m.strips),
        by_bands(m.bands) {
    GM_CHECK(m.units * std::max(m.strips, m.bands) < (int64_t{1} << 31), "depthwise: too many images");
  }
};

/// Where a unit begins, in output rows and columns.
struct DwUnit {
  int image, row, rows, column;
  __device__ __forceinline__ DwUnit(const DwMarch& m, int unit, int tile, const DwShape& d) {
    const int rest = m.by_strips.of(unit);
    image = m.by_bands.of(rest);
    row = (rest - image * m.bands) * m.band_rows;
    rows = min(m.band_rows, d.out_height - row);
    column = (unit - rest * m.strips) * tile;
  }
};

/// Tiles of positions and the items (image, band of rows, strip) that one is cut into. A tile of
/// tile_rows x tile_strips * 4 positions lies in shared memory as held_rows x held_columns pixels of all
/// channels of the slice.
struct DwTiles {
  int rows, tile_rows, row_tiles, tile_strips, strip_tiles, tile_images, band_rows, bands, tiles;
  int held_rows, held_columns, bytes;
  DwQuotient by_held_rows, by_strips, by_items;  // items of one image of the tile

  /// reach: n positions in a row need n - 1 + reach rows or columns of the held tensor.
  DwTiles(int images, int rows, int columns, int reach, size_t element, const DepthwiseSlices& sl)
      : rows(rows), by_held_rows(1), by_strips(1), by_items(1) {
    const int strips = ceil_div(columns, kDwTile),
              pixel_bytes = sl.columns * sl.lanes * static_cast<int>(element);
    auto held = [&](int n) { return n - 1 + reach; };
    auto fits = [&](int r, int s) { return held(r) * held(s * kDwTile) * pixel_bytes <= kDwTileBytes; };
    tile_strips = strips;
    while (tile_strips > 1 && !fits(std::min(rows, 4), tile_strips)) tile_strips = (tile_strips + 1) / 2;
    int most = rows;
    while (most > 1 && !fits(most, tile_strips)) --most;
    row_tiles = ceil_div(rows, most);
    strip_tiles = ceil_div(strips, tile_strips);
    // Few images: smaller tiles, so that every multiprocessor has one.
    while (int64_t{images} * row_tiles * strip_tiles * sl.slices < kDwBlocks / 2 && rows / row_tiles > 3)
      ++row_tiles;
    tile_rows = ceil_div(rows, row_tiles);
    row_tiles = ceil_div(rows, tile_rows);
    held_rows = held(tile_rows);
    held_columns = held(tile_strips * kDwTile);
    tile_images = 1;
    if (row_tiles == 1 && strip_tiles == 1) {
      const int64_t room = kDwTileBytes / (held_rows * held_columns * pixel_bytes),
                    spread = int64_t{images} * sl.slices / kDwBlocks;
      tile_images = static_cast<int>(std::clamp<int64_t>(std::min(room, spread), 1, std::min(8, images)));
    }
    // Every band reads its halo again, but idle threads cost more: the count of least time.
    double least = 1e30;
    for (int b = 1; b <= std::min(tile_rows, 8); ++b) {
      const int each = ceil_div(tile_rows, b), count = ceil_div(tile_rows, each);
      const double turns = ceil_div(tile_images * tile_strips * count, sl.rows),
                   time = turns * (each + 0.3 * (reach - 1));
      if (time < least) least = time, bands = count, band_rows = each;
    }
    tiles = ceil_div(images, tile_images) * row_tiles * strip_tiles;
    by_held_rows = DwQuotient(held_rows);
    by_strips = DwQuotient(tile_strips);
    by_items = DwQuotient(bands * tile_strips);
    bytes = tile_images * held_rows * held_columns * pixel_bytes;
  }
  /// Blocks for one slice: at most `most`, all with the same number of tiles but for the last few.
  int blocks(int64_t most) const {
    const int turns = static_cast<int>(ceil_div(tiles, most));
    return ceil_div(tiles, turns);
  }
};

/// Where a tile begins.
struct DwPlace {
  int image, images, row, rows, column;  // rows and columns: positions
  __device__ DwPlace(const DwTiles& t, int tile, int all_images) {
    const int strip = tile % t.strip_tiles, rest = tile / t.strip_tiles;
    image = rest / t.row_tiles * t.tile_images;
    images = min(t.tile_images, all_images - image);
    row = rest % t.row_tiles * t.tile_rows;
    rows = min(t.tile_rows, t.rows - row);
    column = strip * t.tile_strips * kDwTile;
  }
};

/// One of a tile's items: positions [first, last) of the tile's rows, from the tile's `column` on.
struct DwItem {
  int image, first, last, column;
  __device__ DwItem(const DwTiles& t, const DwPlace& p, int item) {
    image = t.by_items.of(item);
    const int in_image = item - image * t.bands * t.tile_strips, band = t.by_strips.of(in_image);
    column = (in_image - band * t.tile_strips) * kDwTile;
    first = band * t.band_rows;
    last = min(first + t.band_rows, p.rows);
  }
};

/// The load phase, of one tensor or several of the same shape (height, width and channels; the tile's corner
/// is at row `top` and column `left`, its slice begins at channel `first`): for every vector of the tile
/// fetch(k, from), `from` counted in elements from the first image of the tile, then put(k, image, channel,
/// inside, to). Batch fetches come before their puts, so that their loads are in flight together; what is not
/// inside the image fetches some pixel that is.
template <class T, int Batch, class Fetch, class Put>
__device__ __forceinline__ void dw_fill(const DwTiles& t, const DwPlace& p, T* tile, int slice, int height,
                                        int width, int channels, int top, int left, int first, Fetch fetch,
                                        Put put) {
  constexpr int V = kVecLanes<T>, kAcross = 4;  // a group of threads takes every 4th column of a row
  const int vectors = slice / V, groups = static_cast<int>(blockDim.x) / (vectors * kAcross),
            v = static_cast<int>(threadIdx.x) % vectors, mine = static_cast<int>(threadIdx.x) / vectors,
            group = mine / kAcross, channel = min(first + v * V, channels - V);
  if (group >= groups) return;
  for (int r = group; r < p.images * t.held_rows; r += groups) {
    const int image = t.by_held_rows.of(r), ih = top + r - image * t.held_rows;
    const bool row_inside = static_cast<unsigned>(ih) < static_cast<unsigned>(height);
    const int row_at = (image * height + (row_inside ? ih : 0)) * width * channels + channel;
    T* const to = tile + r * t.held_columns * slice + v * V;
    for (int col = mine % kAcross; col < t.held_columns; col += kAcross * Batch) {
      bool inside[Batch];
#pragma unroll
      for (int k = 0; k < Batch; ++k) {
        const int iw = left + col + k * kAcross;
        inside[k] = row_inside && static_cast<unsigned>(iw) < static_cast<unsigned>(width);
        fetch(k, row_at + (inside[k] ? iw * channels : 0));
      }
#pragma unroll
      for (int k = 0; k < Batch; ++k)
        if (col + k * kAcross < t.held_columns)
          put(k, image, v * V, inside[k], to + (col + k * kAcross) * slice);
    }
  }
}

/// Calls f(K, S) with constants, of a 3x3 or 5x5 kernel of stride 1 or 2.
template <class F>
void dw_switch(const DepthwiseShape& d, F&& f) {
  auto stride = [&](auto k) {
    if (d.stride == 1)
      f(k, std::integral_constant<int, 1>{});
    else
      f(k, std::integral_constant<int, 2>{});
  };
  if (d.kernel == 3) return stride(std::integral_constant<int, 3>{});
  stride(std::integral_constant<int, 5>{});
}

}  // namespace gm::GM_BACKEND_NS
