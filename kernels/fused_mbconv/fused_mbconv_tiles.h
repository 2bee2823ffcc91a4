// Which Fused-MBConv blocks our kernel for whole ones serves, and how it cuts them. Functions of the shape
// alone, shared by the launcher, the graph rewrite and their tests. The kernel: fused_mbconv.cuh.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "kernels/common/ceil_div.h"
#include "kernels/fused_mbconv/fused_mbconv.h"

namespace gm {

constexpr int kFusedWarps =
    4;  // of a block, at most, each of 32 pixels: one for each part of a multiprocessor
constexpr int kFusedStages = 3;  // of expanding weights in shared memory, of which two are under way
constexpr int kFusedGrid = 256;  // blocks that a card holds, about: fewer take the time of so many
/// Of a block: two fit a multiprocessor of sm_80, one fits those of sm_86 and sm_89.
constexpr size_t kFusedShared = 80 << 10;

/// 16-byte units of a pixel of the window or a row of expanding weights, of a row of the projection's: odd,
/// so that eight neighbours lie in different banks.
constexpr int fused_pitch(int steps) { return 2 * steps + 1; }
constexpr int fused_project_pitch(int wide) { return wide + 1; }
/// Of a stage: the weights of a tap for the channels of a chunk.
constexpr int fused_stage_units(int steps, int wide) { return 8 * wide * fused_pitch(steps); }

/// A tile is a run of output pixels of one image, the rows of x under them a window in shared memory. The
/// expanded channels go by in chunks of 8 `wide`.
struct FusedMbconvTiles {
  int images = 0, h = 0, w = 0, c = 0, oh = 0, ow = 0, e = 0, k = 0;
  int kernel = 0, stride = 0, pad_top = 0, pad_left = 0;
  int steps = 0;              // of 16 of the C channels: 1 to 4
  int wide = 0, narrow = 0;   // eights of expanded channels of a chunk, of the K channels: 6 6, 8 6, 8 8
  int chunks = 0;             // of expanded channels
  int pixels = 0, tiles = 0;  // of a tile; of an image
  int rows = 0, columns = 0;  // of the window

  constexpr int warps() const { return ceil_div(pixels, 32); }
  constexpr int blocks() const { return images * tiles; }
  constexpr int pitch() const { return fused_pitch(steps); }
  constexpr int project_pitch() const { return fused_project_pitch(wide); }
  constexpr int window_units() const { return rows * columns * pitch(); }
  constexpr int stage_units() const { return fused_stage_units(steps, wide); }
  constexpr int project_units() const { return 8 * narrow * project_pitch(); }
  constexpr size_t shared_bytes() const {
    return size_t{16} * static_cast<size_t>(window_units() + kFusedStages * stage_units() + project_units());
  }
};

/// Cuts an image into runs of `pixels`.
inline void cut_fused_mbconv(FusedMbconvTiles& t, int pixels) {
  const int all = t.oh * t.ow;
  t.pixels = std::min(pixels, all);
  t.tiles = ceil_div(all, t.pixels);
  int most = 0;
  for (int i = 0; i < t.tiles; ++i) {
    const int first = i * t.pixels, last = std::min(first + t.pixels, all) - 1;
    most = std::max(most, last / t.ow - first / t.ow);
  }
  t.rows = most * t.stride + t.kernel;
}

/// All cuts of a block that fit, first those of whole warps; none where the two convolutions serve it.
inline std::vector<FusedMbconvTiles> fused_mbconv_cuts(const FusedMbconvShape& s) {
  const ConvGeometry& g = s.expand;
  constexpr int64_t kMost = 64, kMostExpanded = 1 << 12, kMostSize = 1 << 12, kMostKernel = 7;
  if (g.dtype != DType::bf16 || g.c % 8 || g.k % 8 || s.project.k % 8) return {};
  if (g.c > kMost || s.project.k > kMost || g.k > kMostExpanded) return {};
  if (g.kernel < 2 || g.kernel > kMostKernel || g.h > kMostSize || g.w > kMostSize) return {};
  // The residual is taken from the window.
  if (s.residual && (g.stride != 1 || g.pad_top >= g.kernel || g.pad_left >= g.kernel)) return {};
  auto eights = [](int channels) { return channels <= 48 ? 6 : 8; };
  FusedMbconvTiles t{.images = static_cast<int>(g.n),
                     .h = static_cast<int>(g.h),
                     .w = static_cast<int>(g.w),
                     .c = static_cast<int>(g.c),
                     .oh = static_cast<int>(g.oh),
                     .ow = static_cast<int>(g.ow),
                     .e = static_cast<int>(g.k),
                     .k = static_cast<int>(s.project.k),
                     .kernel = static_cast<int>(g.kernel),
                     .stride = static_cast<int>(g.stride),
                     .pad_top = static_cast<int>(g.pad_top),
                     .pad_left = static_cast<int>(g.pad_left),
                     .steps = static_cast<int>(ceil_div(g.c, 16))};
  t.narrow = eights(t.k);
  auto chunks = [&](int wide) { return ceil_div(t.e, 8 * wide); };
  t.wide = t.narrow == 6 && 6 * chunks(6) < 8 * chunks(8) ? 6 : 8;  // what is padded least
  t.chunks = chunks(t.wide);
  t.columns = (t.ow - 1) * t.stride + t.kernel;
  std::vector<FusedMbconvTiles> cuts;
  auto consider = [&](int pixels) {
    cut_fused_mbconv(t, pixels);
    if (t.shared_bytes() <= kFusedShared && g.n * t.tiles <= INT32_MAX) cuts.push_back(t);
  };
  for (int warps = kFusedWarps; warps > 0; --warps) consider(32 * warps);
  for (int rows = 1; rows * t.ow <= 32 * kFusedWarps && rows <= t.oh; ++rows) consider(rows * t.ow);
  return cuts;
}

/// The cut that is expected to be the fastest. Nothing where there is none.
inline std::optional<FusedMbconvTiles> fused_mbconv_tiles(const FusedMbconvShape& s) {
  // The products of a tile are those of its warps; the weights pass once more for each tile.
  auto cost = [](const FusedMbconvTiles& t) {
    return std::pair(int64_t{std::max(t.blocks(), kFusedGrid)} * (t.warps() + 1), t.shared_bytes());
  };
  const std::vector<FusedMbconvTiles> cuts = fused_mbconv_cuts(s);
  if (cuts.empty()) return {};
  return *std::min_element(cuts.begin(), cuts.end(),
                           [&](const auto& a, const auto& b) { return cost(a) < cost(b); });
}

}  // namespace gm
