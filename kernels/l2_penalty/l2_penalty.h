// Adds a weight penalty to a loss, as Keras's kernel_regularizer l2 does: no 1/2 in front, so the gradient
// has a 2.
//   y = loss + factor * sum w^2            dloss = dy,  dw = 2 factor w dy
// attrs  factor  >= 0
// in[0]  loss  f32 (1)
// in[1]  w     any shape, f32 or bf16; parameter: its gradient is f32
// out[0] y     f32 (1)
// Backward reads w.
#pragma once
#include <algorithm>
#include <cstdint>

namespace gm {

/// The sum runs over slices of fixed length, whose sums are added in order: the same bits whatever runs
/// them.
struct PenaltySlices {
  int64_t length, count;
};
inline PenaltySlices penalty_slices(int64_t n) {
  const int64_t length = std::max<int64_t>(8192, (n / 256 + 1023) / 1024 * 1024);
  return {length, (n + length - 1) / length};
}

}  // namespace gm
