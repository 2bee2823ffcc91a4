// Expanding 1x1 convolutions with batch norm and SiLU behind them, in bf16: which ones have kernels of their
// own for training, and how those are cut. Functions of the shape alone, shared by the op's description, the
// kernels (expand_forward.cuh, expand_backward.cuh) and their tests.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/batch_norm/bn_workspace.h"
#include "kernels/common/shared_limits.h"
#include "kernels/conv2d/conv2d_plan.h"
#include "kernels/conv_bn_act/conv_bn_act.h"

namespace gm {

/// C -> K channels. A unit is 8 channels, 16 bytes; a pixel of a tile in shared memory takes an odd number of
/// them, so that eight neighbouring pixels lie in different banks.
struct Expansion {
  int pixels = 0, c = 0, k = 0;
  constexpr int wide_units() const { return k / 8; }
  constexpr int narrow_units() const { return c / 8; }
  constexpr int wide_pitch() const { return wide_units() | 1; }
  constexpr int narrow_pitch() const { return narrow_units() | 1; }
};

/// False where a convolution is not of this kind. attrs: those of conv_bn_act.
inline bool expands(const Attrs& attrs, const ConvGeometry& g, bool residual, Expansion& p) {
  if (!g.pointwise() || g.dtype != DType::bf16 || act_of(attrs) != Act::silu) return false;
  if (pool_of(attrs) || attrs.get("rate", 0) > 0 || residual) return false;
  if (g.c % 8 != 0 || g.k % 16 != 0 || g.k < 2 * g.c || g.k > (1 << 13)) return false;
  if (g.out_pixels() > INT32_MAX - 1024) return false;
  p.pixels = static_cast<int>(g.out_pixels()), p.c = static_cast<int>(g.c), p.k = static_cast<int>(g.k);
  return true;
}

constexpr int kForwardPixels = 64;  // of a tile
constexpr int kForwardWarps = 8;    // of a block, at most
constexpr int kForwardSteps = 5;    // of 16 of the narrow channels, at most: weights stay in registers

/// How forward is cut: a warp owns a run of 32 wide channels.
struct ExpandForward : Expansion {
  int steps = 0;              // of the depth, 16 narrow channels each
  int slices = 0;             // of the wide channels
  int columns = 0, rows = 0;  // warps of a block: side by side along the channels, along the pixels
  int tiles = 0, walkers = 0;

  constexpr int tile_units() const { return kForwardPixels * narrow_units(); }
  constexpr int held_units() const { return kForwardPixels * narrow_pitch(); }
  /// Two tiles of x, then what each row of warps leaves: two sums a channel.
  size_t shared_bytes() const {
    return size_t{16} * static_cast<size_t>(2 * held_units()) +
           sizeof(float) * static_cast<size_t>(rows * 2 * columns * 32);
  }
};
/// False where the convolution and batch norm's forward pass follow one another instead.
inline bool expand_forward(const Attrs& attrs, const ConvGeometry& g, bool residual, ExpandForward& p) {
  if (!expands(attrs, g, residual, p)) return false;
  p.steps = (p.c + 15) / 16;
  if (p.steps > kForwardSteps) return false;
  const int groups = (p.k + 31) / 32;
  p.slices = (groups + kForwardWarps - 1) / kForwardWarps;
  p.columns = (groups + p.slices - 1) / p.slices;
  p.rows = p.columns > 4 ? 1 : p.columns > 2 ? 2 : 4;
  // Two blocks on each of 132 multiprocessors at most: each leaves sums that one block must read.
  p.tiles = (p.pixels + kForwardPixels - 1) / kForwardPixels;
  p.walkers = std::clamp(p.tiles / 2, 1, std::min(264 / p.slices, static_cast<int>(kBnGpuBlocks)));
  return true;
}

constexpr int kExpandRows = 32;  // pixels of a tile of backward: two steps of the depth of dw

/// How backward is cut.
struct ExpandBackward : Expansion {
  int warps = 0;  // of a block; each owns up to two runs of 16 of the K channels of dw
  int tiles = 0, walkers = 0;

  constexpr int tile_units() const { return kExpandRows * wide_units(); }      // of da, of yc
  constexpr int gradient_units() const { return kExpandRows * wide_pitch(); }  // of dyc
  constexpr int input_units() const { return kExpandRows * narrow_pitch(); }   // of x
  constexpr int weight_units() const { return k * narrow_pitch(); }
  constexpr int coefficient_units() const { return k; }  // four f32 a channel
  /// Coefficients, weights, a tile of yc, two of dyc and of x.
  size_t shared_bytes() const {
    return size_t{16} * static_cast<size_t>(coefficient_units() + weight_units() + tile_units() +
                                            2 * (gradient_units() + input_units()));
  }
  size_t partial_bytes() const { return sizeof(float) * static_cast<size_t>(int64_t{walkers} * k * c); }
};
/// False where batch norm's backward pass and the convolution's follow one another instead.
inline bool expand_backward(const Attrs& attrs, const ConvGeometry& g, bool residual, ExpandBackward& p) {
  if (!expands(attrs, g, residual, p)) return false;
  // What is compiled: the widths of both papers' networks. Registers decide on the warps: eight of them, two
  // blocks on a multiprocessor, or fourteen, alone.
  const int units = p.narrow_units();
  if (p.k <= 256 && ((units >= 2 && units <= 5) || units == 8))
    p.warps = 8;
  else if (p.k <= 448 && (units == 6 || units == 7 || units == 9))
    p.warps = 14;
  else
    return false;
  if (p.shared_bytes() > kLargeShared) return false;
  // As many walkers as blocks run at once on 132 multiprocessors, or fewer: each leaves a partial sum of dw.
  p.tiles = (p.pixels + kExpandRows - 1) / kExpandRows;
  p.walkers = std::clamp(p.tiles / 4, 1, p.warps == 8 ? 264 : 132);
  return true;
}

/// All of a call in one line, for the file of plans: what the clock and the results may depend on. Another
/// number where a kernel changes, so that it has to compete anew.
inline std::string expansion_key(const OpCall& c, const Expansion& p) {
  const char* const statistics = BatchNormAttrs(c.attrs).training ? "" : " running";
  std::string key = "expand 1";
  for (int v : {p.pixels, p.c, p.k}) key += ' ' + std::to_string(v);
  if (c.dout.empty()) return key + " forward" + statistics;
  key += std::string(" backward") + statistics;
  for (size_t i = 0; i < c.din.size(); ++i)
    if (c.din[i]) key += " d" + std::to_string(i);
  return c.ctx.deterministic ? key : key + " free";
}

/// Bytes of scratch in front of that of the steps of backward: dyc, or the partial sums in its place.
inline size_t conv_bn_backward_bytes(const Attrs& attrs, const ConvGeometry& g, bool residual) {
  const size_t dyc = static_cast<size_t>(g.out_pixels() * g.k) * dtype_bytes(g.dtype);
  ExpandBackward p;
  return ConvPlan::aligned(
      std::max(dyc, expand_backward(attrs, g, residual, p) ? p.partial_bytes() : size_t{0}));
}

}  // namespace gm
