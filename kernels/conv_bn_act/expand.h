// Expanding 1x1 convolutions with batch norm and SiLU behind them, in bf16: which ones have kernels of their
// own for training, and how those are cut. Functions of the shape alone, shared by the op's description, the
// kernels (expand_forward.cuh, expand_backward.cuh) and their tests.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "kernels/batch_norm/bn_workspace.h"
#include "kernels/common/card_limits.h"
#include "kernels/common/ceil_div.h"
#include "kernels/conv2d/conv2d.h"
#include "kernels/conv2d/conv2d_pointwise.h"
#include "kernels/conv_bn_act/conv_bn_act.h"

namespace gm {

/// Nothing where a convolution is not of this kind. attrs: those of conv_bn_act.
inline std::optional<Pointwise> expansion(const Attrs& attrs, const ConvGeometry& g, bool residual) {
  if (act_of(attrs) != Act::silu || pool_of(attrs) || attrs.get("rate", 0) > 0 || residual) return {};
  if (g.k % 16 != 0 || g.k < 2 * g.c) return {};
  return pointwise(g);
}

/// Blocks of a multiprocessor that hold the weights of so many steps, and sums or coefficients beside them.
constexpr int expand_blocks(int steps) { return steps <= 5 ? 2 : 1; }

/// How forward is cut.
struct ExpandForward : PointwiseTiles {
  /// Blocks of a slice that form statistics, on a card of so many multiprocessors: no more than it holds at
  /// once, as each leaves sums that one block must read.
  int summing_walkers(int multiprocessors) const {
    const int most = multiprocessors * expand_blocks(steps) / slices;
    return std::clamp(tiles / 2, 1, std::clamp(most, 1, static_cast<int>(kBnGpuBlocks)));
  }
  /// Two tiles of x, then what each row of warps leaves: two sums a channel.
  size_t shared_bytes() const {
    return tiles_bytes() + sizeof(float) * static_cast<size_t>(rows * 2 * columns * 32);
  }
};
/// Nothing where the convolution and batch norm's forward pass follow one another instead.
inline std::optional<ExpandForward> expand_forward(const Attrs& attrs, const ConvGeometry& g, bool residual) {
  const auto product = expansion(attrs, g, residual);
  const auto tiles = product ? pointwise_tiles(*product) : std::nullopt;
  if (!tiles) return {};
  return ExpandForward{*tiles};
}

constexpr int kExpandRows = 32;  // pixels of a tile of backward: two steps of the depth of dw

/// How backward is cut.
struct ExpandBackward : Pointwise {
  int warps = 0;  // of a block; each owns up to two runs of 16 of the K channels of dw
  int tiles = 0;

  /// Blocks on a card of so many multiprocessors: as many as it holds at once, or fewer. Each leaves a
  /// partial sum of dw.
  constexpr int walkers(int multiprocessors) const {
    return std::clamp(tiles / 4, 1, (warps == 8 ? 2 : 1) * multiprocessors);
  }
  constexpr int tile_units() const { return kExpandRows * out_units(); }      // of da, of yc
  constexpr int gradient_units() const { return kExpandRows * out_pitch(); }  // of dyc
  constexpr int input_units() const { return kExpandRows * in_pitch(); }      // of x
  constexpr int weight_units() const { return k * in_pitch(); }
  constexpr int coefficient_units() const { return k; }  // four f32 a channel
  /// Coefficients, weights, a tile of yc, two of dyc and of x.
  size_t shared_bytes() const {
    return size_t{16} * static_cast<size_t>(coefficient_units() + weight_units() + tile_units() +
                                            2 * (gradient_units() + input_units()));
  }
  /// On any card.
  size_t partial_bytes() const {
    return sizeof(float) * static_cast<size_t>(int64_t{walkers(kSummingMultiprocessors)} * k * c);
  }
};
/// Nothing where batch norm's backward pass and the convolution's follow one another instead.
inline std::optional<ExpandBackward> expand_backward(const Attrs& attrs, const ConvGeometry& g,
                                                     bool residual) {
  const auto product = expansion(attrs, g, residual);
  if (!product) return {};
  ExpandBackward p{*product};
  // What is compiled: the widths of both papers' networks. Registers decide on the warps: eight of them, two
  // blocks on a multiprocessor, or fourteen, alone.
  const int units = p.in_units();
  if (p.k <= 256 && ((units >= 2 && units <= 5) || units == 8))
    p.warps = 8;
  else if (p.k <= 448 && (units == 6 || units == 7 || units == 9))
    p.warps = 14;
  else
    return {};
  if (p.shared_bytes() > kLargeShared) return {};
  p.tiles = ceil_div(p.pixels, kExpandRows);
  return p;
}

/// All of a call in one line, for the file of plans: what the clock and the results may depend on.
inline std::string expansion_key(const OpCall& c, const Pointwise& p) {
  const char* const statistics = BatchNormAttrs(c.attrs).training ? "" : " running";
  std::string key = "expand";
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
  const auto joint = expand_backward(attrs, g, residual);
  return aligned_bytes(std::max(dyc, joint ? joint->partial_bytes() : size_t{0}));
}

}  // namespace gm
