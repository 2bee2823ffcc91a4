// How the depthwise CUDA kernels cut their work: shared by the descriptions (planned memory) and the
// launchers. What memory is planned for is a function of the shape; blocks are no more than a card runs.
#pragma once
#include "kernels/batch_norm/bn_workspace.h"
#include "kernels/common/card_limits.h"
#include "kernels/common/ceil_div.h"
#include "kernels/common/op.h"
#include "kernels/depthwise_conv2d/depthwise_conv2d.h"

namespace gm {

constexpr int kDwThreads = 256;  // a block
constexpr int kDwTile = 4;       // backward on tiles: columns of a strip, which one thread takes
constexpr int kDwLanes = 2;      // of a thread that marches: channels
/// Blocks of forward that a multiprocessor is sure to run at once; a launch has up to twice as many.
constexpr int kDwResident = 2;
/// Blocks of one launch, over all slices of channels: on any card, at most.
constexpr int kDwBlocks = 2 * kDwResident * kSummingMultiprocessors;

/// Backward that marches: threads of a block, blocks that a multiprocessor runs at once; the time of a unit
/// besides its rows and those that only fill the window, in rows.
constexpr int kDwBackThreads = 128, kDwBackBlocks = 3;
constexpr double kDwBackOverhead = 0.2;

/// Channels of one thread in backward: the window, weights and sums of a 5x5 kernel leave registers for one.
constexpr int depthwise_lanes(int kernel) { return kernel >= 5 ? 1 : 2; }

/// Channels in slices of `columns` threads of `lanes` channels. A few channels are one slice; many are cut so
/// that few threads idle, in whole 16-byte vectors (72 pairs = 3 x 24, 120 = 4 x 32 less 8).
struct DepthwiseSlices {
  int lanes, columns, rows, slices;
  DepthwiseSlices(int64_t channels, int wanted_lanes, int threads = kDwThreads)
      : lanes(channels % wanted_lanes ? 1 : wanted_lanes) {
    const int vectors = static_cast<int>(channels / lanes);
    columns = vectors;
    if (vectors > 40) {
      double best = 0;
      for (int width : {32, 24, 40}) {
        const int parts = ceil_div(vectors, width);
        const double busy = double(vectors) / (parts * width) * (threads / width * width);
        if (busy > best) best = busy, columns = width;
      }
    }
    rows = threads / columns;
    slices = ceil_div(vectors, columns);
  }
  explicit DepthwiseSlices(const DepthwiseShape& d)
      : DepthwiseSlices(d.channels, depthwise_lanes(d.kernel)) {}
};

/// Blocks that share the groups of a slice, a group being a unit for every row of a block.
struct DepthwiseBlocks {
  int blocks;
  int64_t rounds;  // groups that a block takes, times the waves in which the blocks of all slices run

  /// All blocks take as many groups but for the last few; a slice has no more than `most` blocks, a card
  /// `at_once` running.
  DepthwiseBlocks(int64_t groups, int slices, int64_t most, int at_once) {
    const int64_t turns = ceil_div(groups, most);
    blocks = static_cast<int>(ceil_div(groups, turns));
    rounds = turns * ceil_div(int64_t{blocks} * slices, at_once);
  }
  /// Forward: as many blocks as may be, or, where the last of their waves is a rest for which all others
  /// wait, no more than run at once.
  static DepthwiseBlocks forward(int64_t groups, int slices, int multiprocessors) {
    const int at_once = kDwResident * multiprocessors;
    auto at_most = [&](int blocks) {
      const int64_t most = std::clamp<int64_t>(blocks / slices, 1, kBnGpuBlocks);
      return DepthwiseBlocks(groups, slices, most, at_once);
    };
    const DepthwiseBlocks many = at_most(2 * at_once), few = at_most(at_once);
    return few.rounds < many.rounds ? few : many;
  }
};

/// How the kernels that march cut images: strips of `tile` columns x bands of rows, of the output in forward;
/// one of these is a unit, which a thread marches down.
struct DepthwiseMarch {
  int tile;
  bool whole;  // strips fill the width, and only its outermost columns look outside; else tile is 4
  int strips, bands, band_rows;
  int64_t units;
  int blocks;  // of a slice

  /// Forward, cut for an H100: a pooled output leaves sums for each of its units.
  DepthwiseMarch(const DepthwiseShape& d, DType type, const DepthwiseSlices& sl)
      : DepthwiseMarch(d, type, sl, d.kernel == 3 ? 7 : 4, 1.5, [&](int64_t groups) {
          return DepthwiseBlocks::forward(groups, sl.slices, kSummingMultiprocessors);
        }) {}
  /// Blocks of a slice on a card of so many multiprocessors.
  int forward_blocks(const DepthwiseSlices& sl, int multiprocessors) const {
    return DepthwiseBlocks::forward(ceil_div(units, sl.rows), sl.slices, multiprocessors).blocks;
  }

  /// widest: columns of a strip that registers hold; overhead: the time of a unit besides its rows, in rows;
  /// deal(groups): their DepthwiseBlocks.
  template <class Deal>
  DepthwiseMarch(const DepthwiseShape& d, DType type, const DepthwiseSlices& sl, int widest, double overhead,
                 Deal deal)
      : tile(4), whole(false) {
    const int width = static_cast<int>(d.out_width), half = d.kernel / 2;
    const int64_t pad_right = (d.out_width - 1) * d.stride + d.kernel - d.pad_left - d.width;
    // f32 is for checks, not for speed.
    if (type == DType::bf16 && d.pad_left <= half && pad_right <= half)
      for (int t : {4, 6, 7})
        if (width % t == 0 && t <= widest) tile = t, whole = true;
    strips = ceil_div(width, tile);
    // Bands fill a card with few images, but each reads rows of its neighbour and waits for its first row:
    // the count of least time.
    const int rows = static_cast<int>(d.out_height);
    double least = 1e30;
    for (int b = 1; b <= rows; ++b) {
      const int each = ceil_div(rows, b);
      if (ceil_div(rows, each) != b) continue;
      const DepthwiseBlocks dealt = deal(ceil_div(d.images * strips * b, sl.rows));
      const double time = static_cast<double>(dealt.rounds) * (each + overhead);
      if (time < least) least = time, bands = b, band_rows = each, blocks = dealt.blocks;
    }
    units = d.images * strips * bands;
  }
};

/// Whether there is a marching kernel: of 3x3 and 5x5, stride 1 and 2, whole pairs of channels.
inline bool depthwise_marches(const DepthwiseShape& d) {
  return (d.kernel == 3 || d.kernel == 5) && d.stride <= 2 && d.channels % kDwLanes == 0;
}
/// Sums of an image and channel that forward leaves for a mean of its output: one for each unit.
inline int64_t depthwise_gpu_parts(const DepthwiseShape& d, DType type) {
  if (!depthwise_marches(d)) return 1;
  const DepthwiseMarch m(d, type, DepthwiseSlices(d.channels, kDwLanes));
  return m.strips * m.bands;
}

/// Blocks that share one slice of channels in backward and leave one partial weight gradient each, at most.
inline int64_t depthwise_gpu_partials(const DepthwiseShape& d) {
  return std::max(1, kDwBlocks / DepthwiseSlices(d).slices);
}
/// The backward that marches, bf16: x is cut, and a slice has no more blocks than run at once.
struct DepthwiseMarchBack {
  DepthwiseSlices slices;
  DepthwiseMarch march;
  bool fits;  // 3x3 or 5x5, stride 1, a map as large as the input that strips fill

  DepthwiseMarchBack(const DepthwiseShape& d, int multiprocessors)
      : DepthwiseMarchBack(d, multiprocessors * kDwBackBlocks,
                           {d.channels, depthwise_lanes(d.kernel), kDwBackThreads}) {}

 private:
  DepthwiseMarchBack(const DepthwiseShape& d, int at_once, const DepthwiseSlices& sl)
      : slices(sl),
        march(d, DType::bf16, sl, d.kernel == 3 ? 7 : 6, d.kernel - 1 + kDwBackOverhead,
              [&](int64_t groups) {
                return DepthwiseBlocks(groups, sl.slices, std::max(1, at_once / sl.slices), at_once);
              }),
        fits((d.kernel == 3 || d.kernel == 5) && d.stride == 1 && d.pad_top == d.kernel / 2 &&
             d.pad_left == d.kernel / 2 && d.out_height == d.height && d.out_width == d.width &&
             d.channels % depthwise_lanes(d.kernel) == 0 && march.whole) {}
};
/// Backward: partial weight gradients [partials][taps][C] f32.
inline size_t depthwise_gpu_workspace(const DepthwiseShape& d) {
  return static_cast<size_t>(depthwise_gpu_partials(d) * d.taps() * d.channels) * sizeof(float);
}

}  // namespace gm
