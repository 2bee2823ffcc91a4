// Scalar math that the compiler vectorises: no branches, no libm calls. Used by the CPU kernels, which are
// compiled once per instruction set with -O3 -fno-math-errno -fno-trapping-math.
#pragma once
#include <cstdint>
#include <cstring>

#include "kernels/activation/activation.h"
#include "kernels/common/dtype.h"

namespace gm::GM_CPU_NS {

/// exp(x), relative error < 2e-7 for -87 <= x <= 88, clamped outside. Cody-Waite reduction and the degree-6
/// minimax polynomial of exp on [-ln2/2, ln2/2].
inline float fast_exp(float x) {
  x = x < -87.f ? -87.f : x;
  x = x > 88.f ? 88.f : x;
  const float shifted =
      x * 1.44269504f + 12582912.f;  // rounds to the nearest integer in the low mantissa bits
  const float n = shifted - 12582912.f;
  float r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.f;
  int32_t bits;
  memcpy(&bits, &shifted, 4);
  bits = (bits + 127) << 23;  // 12582912.f has zero in the bits that survive the shift, up to the bias
  float scale;
  memcpy(&scale, &bits, 4);
  return p * scale;
}
inline float fast_sigmoid(float x) { return 1.f / (1.f + fast_exp(-x)); }

/// y = act(x) with the kind fixed at compile time, so that loops over it vectorise.
template <Act A>
inline float act_value(float x) {
  if constexpr (A == Act::silu) return x * fast_sigmoid(x);
  if constexpr (A == Act::relu) return x > 0.f ? x : 0.f;
  if constexpr (A == Act::relu6) return x > 0.f ? (x < 6.f ? x : 6.f) : 0.f;
  if constexpr (A == Act::sigmoid) return fast_sigmoid(x);
  return x;
}
/// d act(x) / dx
template <Act A>
inline float act_slope(float x) {
  if constexpr (A == Act::silu) {
    const float s = fast_sigmoid(x);
    return s * (1.f + x * (1.f - s));
  }
  if constexpr (A == Act::relu) return x > 0.f ? 1.f : 0.f;
  if constexpr (A == Act::relu6) return x > 0.f && x < 6.f ? 1.f : 0.f;
  if constexpr (A == Act::sigmoid) {
    const float s = fast_sigmoid(x);
    return s * (1.f - s);
  }
  return 1.f;
}

}  // namespace gm::GM_CPU_NS
