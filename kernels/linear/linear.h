// Dense layer.
//   y[n,o] = bias[o] + sum over i of x[n,i] * w[o,i]
// in[0]  x    (N, In)    f32 or bf16
// in[1]  w    (Out, In)  dtype of x; parameter: its gradient is f32
// in[2]  bias (Out)      f32, optional; parameter
// out[0] y    (N, Out)   dtype of x
// Backward reads x and w:  dx = dy w,  dw = dy^T x,  dbias = sum of dy over n.
#pragma once
#include <cstdint>
#include <span>

#include "kernels/common/ceil_div.h"
#include "kernels/common/view.h"

namespace gm {

struct LinearShape {
  int64_t n, in, out;
  DType dtype;
};
/// Throws gm::Error naming what does not fit.
LinearShape linear_shape(std::span<const TensorSpec> in);
inline LinearShape linear_shape(const View& x, const View& w) {
  const TensorSpec specs[] = {x.spec, w.spec};
  return linear_shape(specs);
}

/// CPU scratch: bf16 operands widened to f32, each at a multiple of 64 bytes.
constexpr size_t linear_wide_bytes(int64_t values) { return static_cast<size_t>(ceil_div(values, 16) * 64); }

/// CUDA scratch of the weight gradient: slices of the batch summed in a second stage; sizes depend on the
/// problem only.
struct LinearSlices {
  int count;
  int64_t rows;  // per slice, a multiple of 16
};
inline LinearSlices linear_slices(const LinearShape& s) {
  const int64_t tiles = ceil_div(s.out, 64) * ceil_div(s.in, 64);
  int64_t wanted = 256 / tiles < 1 ? 1 : 256 / tiles;
  if (wanted > ceil_div(s.n, 128)) wanted = ceil_div(s.n, 128);
  const int64_t rows = round_up(ceil_div(s.n, wanted), 16);
  return {static_cast<int>(ceil_div(s.n, rows)), rows};
}

}  // namespace gm
