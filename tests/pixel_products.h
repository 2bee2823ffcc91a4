// For the tests of 1x1 convolutions: their geometry, values, and what the kernels take for granted of how
// PointwiseTiles cuts them.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

#include "kernels/common/philox.h"
#include "kernels/conv2d/conv2d_pointwise.h"

namespace gm::test {

inline ConvGeometry pixel_product(int64_t pixels, int64_t c, int64_t k) {
  return {
      .n = 1, .h = pixels, .w = 1, .c = c, .k = k, .kernel = 1, .oh = pixels, .ow = 1, .dtype = DType::bf16};
}

/// Bell-shaped, from four uniform values each.
inline std::vector<float> noise(uint64_t seed, int64_t n, float mean, float deviation) {
  std::vector<float> v(static_cast<size_t>(n));
  for (size_t i = 0; i < v.size(); ++i) {
    const Philox4 r = philox(seed, static_cast<uint32_t>(i), 0, 0, 0);
    float sum = -2;
    for (uint32_t bits : r.v) sum += philox_uniform(bits);
    v[i] = mean + deviation * std::sqrt(3.f) * sum;
  }
  return v;
}
inline std::vector<bf16> rounded(const std::vector<float>& v) {
  std::vector<bf16> r;
  for (float f : v) r.push_back(to_bf16(f));
  return r;
}

/// Every warp has channels and every channel a warp, every pixel a tile.
inline void check_tiles(const PointwiseTiles& p) {
  ASSERT_GE(p.slices * p.columns * 32, p.k);
  ASSERT_LT((p.slices - 1) * p.columns * 32, p.k);
  ASSERT_LE(p.columns * p.rows, kPointwiseWarps);
  ASSERT_EQ(kPointwisePixels % (16 * p.rows), 0);
  ASSERT_GE(p.steps * 16, p.c);
  ASSERT_GE(p.tiles * kPointwisePixels, p.pixels);
  ASSERT_LT((p.tiles - 1) * kPointwisePixels, p.pixels);
}
/// The kernels' division by the units of a pixel.
inline void check_division(int units) {
  for (int e = 0; e < kPointwisePixels * units; ++e) ASSERT_EQ(e * ((1 << 16) / units + 1) >> 16, e / units);
}
/// Eight neighbouring pixels, a pitch of units apart, lie in different banks.
inline void check_banks(int pitch) {
  std::set<int> banks;
  for (int i = 0; i < 8; ++i) banks.insert(i * pitch % 8);
  EXPECT_EQ(banks.size(), 8u) << "eight neighbouring pixels lie in different banks";
}

}  // namespace gm::test
