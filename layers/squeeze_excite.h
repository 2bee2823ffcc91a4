// Finding squeeze-and-excitation behind a node. Private to layers/.
#pragma once
#include <vector>

#include "layers/rewriting.h"

namespace gm {

/// Average pool -> dense -> activation -> dense -> sigmoid -> channel_scale of what was pooled.
struct SqueezeExcite {
  int pool = -1, squeeze = -1, squeeze_act = -1, excite = -1, gate = -1, scale = -1;

  explicit operator bool() const { return scale >= 0; }
  /// Weights and bias of both layers, absent where there are none.
  std::vector<ValueId> layers(const Graph& g) const;
  std::vector<int> nodes() const;
};

/// The one that alone reads the first output of `node`, with activation `act` between its layers; else empty.
SqueezeExcite squeeze_excite_behind(const Graph& g, const Matcher& match, int node, Act act);

}  // namespace gm
