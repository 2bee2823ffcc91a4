// Finding MBConv blocks that one mbconv node can stand for. Private to layers/.
#pragma once
#include <optional>
#include <vector>

#include "layers/squeeze_excite.h"

namespace gm {

/// The nodes of a block; expand and se may be empty.
struct WholeBlock {
  Chain expand, depthwise, project;
  SqueezeExcite se;

  std::vector<int> nodes() const;
};

class WholeBlocks {
 public:
  WholeBlocks(const Graph& g, const Matcher& match) : g_(g), match_(match) {}

  /// The block whose first node this is.
  std::optional<WholeBlock> from(int node) const;
  ValueId input(const WholeBlock& b) const;
  Attrs attrs(const WholeBlock& b) const;
  /// Whether a card is expected to gain by it; every: whether it fits.
  bool pays(const WholeBlock& b, bool every) const;

 private:
  const Graph& g_;
  const Matcher& match_;
};

}  // namespace gm
