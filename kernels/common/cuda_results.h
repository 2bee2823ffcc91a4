// Holds the results of two kernels for one problem against each other: before one that is new on a card, a
// library's or our own, takes the other's place. Free of CUDA headers.
#pragma once
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/common/view.h"

namespace gm {

constexpr double kWrong = 0.05;  // of the result's size: a wrong kernel is off by about 1, rounding by 1/200

/// The first and last elements of a tensor on the current device, f32 or bf16, at most 2^15 of either. Waits
/// for the stream.
std::vector<float> first_and_last(const View& tensor, void* stream);

/// Root mean square of got - want over that of want. 0 where `want` is not finite: that proves nothing.
inline double relative_difference(const std::vector<float>& got, const std::vector<float>& want) {
  double off = 0, size = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    size += double(want[i]) * want[i];
    off += (double(got[i]) - want[i]) * (double(got[i]) - want[i]);
  }
  if (!std::isfinite(size) || off == 0) return 0;
  return std::isfinite(off) ? std::sqrt(off / size) : std::numeric_limits<double>::infinity();
}

}  // namespace gm
