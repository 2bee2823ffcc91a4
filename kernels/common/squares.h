// Sums of squares of flat tensors, the same bits on any machine load: slices of fixed length, whose sums are
// added in order.
#pragma once
#include <algorithm>
#include <cstdint>

#include "kernels/common/ceil_div.h"
#include "kernels/common/dtype.h"

namespace gm {

struct SquareSlices {
  int64_t length, count;
};
inline SquareSlices square_slices(int64_t n) {
  const int64_t length = std::max<int64_t>(8192, round_up(n / 256, 1024));
  return {length, ceil_div(n, length)};
}

/// One slice on the CPU. In 16 lanes, so that it is a vector loop with the same bits on every instruction
/// set.
template <class T>
inline float sum_of_squares(const T* w, int64_t count) {
  constexpr int kWide = 16;
  float sum[kWide] = {};
  int64_t i = 0;
  for (; i + kWide <= count; i += kWide)
    for (int lane = 0; lane < kWide; ++lane) sum[lane] += to_float(w[i + lane]) * to_float(w[i + lane]);
  for (int lane = 0; i < count; ++i, ++lane) sum[lane] += to_float(w[i]) * to_float(w[i]);
  for (int lane = 1; lane < kWide; ++lane) sum[0] += sum[lane];
  return sum[0];
}

}  // namespace gm
