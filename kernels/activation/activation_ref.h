// Activations and their derivatives in doubles: the oracle of every op with one inside.
#pragma once
#include <algorithm>
#include <cmath>

#include "kernels/activation/activation.h"

namespace gm::ref {

inline double act_value(Act act, double x) {
  switch (act) {
    case Act::silu:
      return x / (1 + std::exp(-x));
    case Act::relu:
      return std::max(x, 0.);
    case Act::relu6:
      return std::min(std::max(x, 0.), 6.);
    case Act::sigmoid:
      return 1 / (1 + std::exp(-x));
    case Act::none:
      break;
  }
  return x;
}
inline double act_slope(Act act, double x) {
  const double s = 1 / (1 + std::exp(-x));
  switch (act) {
    case Act::silu:
      return s * (1 + x * (1 - s));
    case Act::relu:
      return x > 0;
    case Act::relu6:
      return x > 0 && x < 6;
    case Act::sigmoid:
      return s * (1 - s);
    case Act::none:
      break;
  }
  return 1;
}

}  // namespace gm::ref
