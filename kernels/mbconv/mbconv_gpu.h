// How the CUDA kernels cut an MBConv block: shared by the description (planned memory), the launchers and the
// graph rewrite, which leaves a block alone when nothing fits.
//
// A thread block computes a tile: `rows` output rows of one image, or several whole images. It goes through
// the expanded channels `chunk` at a time: expand the input rows of the tile, convolve them, multiply by the
// matching columns of w_project; the sums of the projection stay in registers. Where tiles are too few to
// fill a card, the chunks are dealt to `groups` blocks a tile, whose partial sums a second kernel adds in
// order. The cut depends on the shape alone, so that sums have the same bits on every card.
#pragma once
#include <cstddef>
#include <optional>
#include <vector>

#include "kernels/common/card_limits.h"
#include "kernels/common/ceil_div.h"
#include "kernels/common/op.h"
#include "kernels/mbconv/mbconv.h"

namespace gm {

constexpr int kMbThreads = 256;
constexpr int kMbColumns = 4;  // output columns of a strip of the depthwise convolution

/// Products: f32 by multiply-adds, an item is 4 x 4 sums of one thread; bf16 by matrix units, an item is 16 x
/// 24 sums of one warp. Their depth is padded with zeros.
template <class T>
struct MbUnit {
  static constexpr int kDepth = 4, kItemRows = 4, kItemColumns = 4, kItemThreads = 1;
  static constexpr int kMostSums = 3;  // items of the projection that a thread (a warp) can hold
  static constexpr int kAligned = 4;   // rows of operands start at odd multiples of so many values: mb_pitch
};
template <>
struct MbUnit<bf16> {
  static constexpr int kDepth = 16, kItemRows = 16, kItemColumns = 24, kItemThreads = 32;
  static constexpr int kMostSums = 4;
  static constexpr int kAligned = 16;
};

/// Values from one row of an operand to the next in shared memory. An odd number of 16-byte words in f32 and
/// of 32-byte words in bf16: the rows that threads read side by side lie in different banks.
template <class T>
constexpr int mb_pitch(int64_t n) {
  return static_cast<int>((ceil_div(n, MbUnit<T>::kAligned) | 1) * MbUnit<T>::kAligned);
}
template <class T>
constexpr int mb_deep(int64_t n) {
  return static_cast<int>(round_up(n, MbUnit<T>::kDepth));
}

/// Items of a product of `rows` pixels and `columns` channels.
template <class T>
constexpr int mb_items(int rows, int columns) {
  using Unit = MbUnit<T>;
  return ceil_div(rows, Unit::kItemRows) * ceil_div(columns, Unit::kItemColumns);
}

/// Columns of a tile of the expanded tensor with its border of zeros.
int mb_border_width(const DepthwiseShape& d);

struct MbconvPlan {
  int rows = 0, images = 1;  // of a tile: output rows; images, more than one only of whole ones
  int chunk = 0;             // expanded channels at a time, a multiple of 8; of 16 in bf16
  int groups = 1;            // thread blocks that share a tile
  int sums = 0;              // items of the projection that a thread (bf16: a warp) holds
  double cost = 0;           // estimated, in instructions of a thread
  int row_tiles = 0, image_tiles = 0, chunks = 0;
  // Shared memory: offsets and size in bytes. x, e, d and weights are of the dtype of the tensors, bias and
  // gate are f32.
  int x = 0, e = 0, d = 0, w_expand = 0, w_depthwise = 0, w_project = 0, bias = 0, gate = 0, shared = 0;

  int tiles() const { return row_tiles * image_tiles; }
  int chunks_per_group() const { return ceil_div(chunks, groups); }
  size_t shared_bytes() const { return static_cast<size_t>(shared); }
  /// Input rows that a tile needs, those outside the image included.
  int in_rows(const DepthwiseShape& d) const { return (rows - 1) * d.stride + d.kernel; }
};

/// All cuts that fit.
std::vector<MbconvPlan> mbconv_plans(const MbconvShape& s);
/// The cheapest by a count of instructions; none when the block does not fit.
std::optional<MbconvPlan> mbconv_plan(const MbconvShape& s);

/// Workspace of the launchers. Several groups: partial sums [groups][N][OH][OW][K] f32 at 0. With
/// squeeze-and-excitation: d at 0, in the dtype of x, then the sums of its tiles [N][row_tiles][E] f32.
struct MbGpuWorkspace {
  size_t pooled = 0, bytes = 0;
};
MbGpuWorkspace mb_gpu_workspace(const MbconvShape& s, const MbconvPlan& p);

/// Whether one node is expected to beat separate convolutions on a card: see mbconv_plan.def.cpp.
bool mbconv_pays(const MbconvShape& s);

}  // namespace gm
