// The one shuffle of the engine: std::shuffle's order is another one in every standard library.
#pragma once
#include <utility>
#include <vector>

#include "kernels/common/philox.h"

namespace gm {

/// All orders are equally likely (Fisher and Yates); one draw an element but the last. For fewer than 2^32.
template <typename T>
void shuffle(std::vector<T>& order, PhiloxStream& rng) {
  for (size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[rng.below(static_cast<uint32_t>(i))]);
}

}  // namespace gm
