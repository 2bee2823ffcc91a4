// Finding blocks that one node can stand for: mbconv, fused_mbconv. Private to layers/.
#pragma once
#include <optional>
#include <vector>

#include "layers/squeeze_excite.h"

namespace gm {

/// The nodes of a block; expand and se may be empty.
struct MbconvBlock {
  Chain expand, depthwise, project;
  SqueezeExcite se;

  std::vector<int> nodes() const;
};

/// The two convolutions of a Fused-MBConv block.
struct FusedMbconvBlock {
  Chain expand, project;

  std::vector<int> nodes() const;
};

class WholeBlocks {
 public:
  WholeBlocks(const Graph& g, const Matcher& match) : g_(g), match_(match) {}

  /// The MBConv block whose first node this is.
  std::optional<MbconvBlock> mbconv_from(int node) const;
  ValueId input(const MbconvBlock& b) const;
  Attrs attrs(const MbconvBlock& b) const;
  /// Whether a card is expected to gain by it; every: whether it fits.
  bool pays(const MbconvBlock& b, bool every) const;

  /// The Fused-MBConv block whose first node this is, if a card has a kernel for it as a whole. Whether that
  /// one is the faster is the clock's decision.
  std::optional<FusedMbconvBlock> fused_mbconv_from(int node) const;
  ValueId input(const FusedMbconvBlock& b) const { return g_.nodes()[b.expand.conv].in[0]; }
  Attrs attrs(const FusedMbconvBlock& b) const;

 private:
  const Graph& g_;
  const Matcher& match_;
};

}  // namespace gm
