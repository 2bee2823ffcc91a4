// 1x1 convolutions with their weights in registers: which shapes the kernels take, how they are cut, and what
// they compute.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <set>
#include <vector>

#include "kernels/common/philox.h"
#include "kernels/common/shared_limits.h"
#include "kernels/conv2d/conv2d_pointwise.h"
#include "tests/op_direct.h"

namespace gm::test {
namespace {

ConvGeometry geometry(int64_t pixels, int64_t c, int64_t k) {
  return {
      .n = 1, .h = pixels, .w = 1, .c = c, .k = k, .kernel = 1, .oh = pixels, .ow = 1, .dtype = DType::bf16};
}
bool takes(const ConvGeometry& g) {
  PointwiseTiles p;
  return pointwise_conv(g, p);
}

TEST(ConvPointwise, TakesWhatItIsFor) {
  const ConvGeometry g = geometry(1000, 24, 144);
  EXPECT_TRUE(takes(g));
  EXPECT_TRUE(takes(geometry(1, 8, 8)));
  EXPECT_TRUE(takes(geometry(1, 256, 1536)));
  EXPECT_TRUE(takes(geometry(1, 240, 40))) << "a projection";
  EXPECT_FALSE(takes(geometry(1, 264, 1536))) << "more weights than registers";
  EXPECT_FALSE(takes(geometry(1, 20, 144)));
  EXPECT_FALSE(takes(geometry(1, 24, 100)));
  EXPECT_FALSE(takes(geometry(INT32_MAX, 24, 144)));
  ConvGeometry f32 = g, wide = g, strided = g, padded = g;
  f32.dtype = DType::f32, wide.kernel = 3, strided.stride = 2, padded.pad_left = 1;
  for (const ConvGeometry& other : {f32, wide, strided, padded}) EXPECT_FALSE(takes(other));
}

TEST(ConvPointwise, EveryWarpHasChannelsAndEveryChannelAWarp) {
  for (int c = 8; c <= 256; c += 8)
    for (int k = 8; k <= 2048; k += 8)
      for (int64_t pixels : {1, 63, 64, 65, 12544 * 256}) {
        PointwiseTiles p;
        ASSERT_TRUE(pointwise_conv(geometry(pixels, c, k), p));
        SCOPED_TRACE(std::to_string(c) + " -> " + std::to_string(k));
        ASSERT_GE(p.slices * p.columns * 32, k);
        ASSERT_LT((p.slices - 1) * p.columns * 32, k);
        ASSERT_LE(p.warps(), kPointwiseWarps);
        ASSERT_EQ(kPointwisePixels % (16 * p.rows), 0);
        ASSERT_GE(p.steps * 16, c);
        ASSERT_GE(p.tiles * kPointwisePixels, p.pixels);
        ASSERT_LT((p.tiles - 1) * kPointwisePixels, p.pixels);
        ASSERT_GE(p.resident(), 1);
        ASSERT_LE(static_cast<size_t>(p.resident()) * (p.tiles_bytes() + 1024), size_t{164} << 10);
        ASSERT_LE(p.tiles_bytes(), kSmallestShared);
      }
  std::set<int> banks;
  for (int units = 1; units <= 32; ++units) {
    for (int e = 0; e < kPointwisePixels * units; ++e)  // the kernel's division
      ASSERT_EQ(e * ((1 << 16) / units + 1) >> 16, e / units);
    banks.clear();
    for (int i = 0; i < 8; ++i) banks.insert(i * (units | 1) % 8);
    ASSERT_EQ(banks.size(), 8u) << "eight neighbouring pixels lie in different banks";
  }
}

// Sums in f32, rounded once: each compiled number of steps, on every card that there is.
TEST(ConvPointwise, ResultsAreRoundedOnce) {
  const auto noise = [](uint64_t seed, int64_t n) {
    std::vector<bf16> v(static_cast<size_t>(n));
    for (size_t i = 0; i < v.size(); ++i)
      v[i] = to_bf16(2 * philox_uniform(philox(seed, static_cast<uint32_t>(i), 0, 0, 0).v[0]) - 1);
    return v;
  };
  for (const std::string& device : card_backends())
    for (const auto& [pixels, c, k] : std::vector<std::array<int64_t, 3>>{{1, 8, 8},
                                                                          {64, 16, 96},
                                                                          {65, 24, 144},
                                                                          {333, 40, 240},
                                                                          {190, 56, 24},
                                                                          {130, 72, 432},
                                                                          {100, 128, 512},
                                                                          {200, 144, 24},
                                                                          {70, 160, 960},
                                                                          {129, 192, 56},
                                                                          {33, 256, 1280}}) {
      SCOPED_TRACE(device + " " + std::to_string(c) + " -> " + std::to_string(k));
      Direct d(device, true);
      const auto x = noise(1, pixels * c), w = noise(2, k * c), r = noise(3, pixels * k);
      std::vector<float> bias(static_cast<size_t>(k));
      for (int64_t i = 0; i < k; ++i) bias[i] = static_cast<float>(std::sin(double(i)));
      const View y = d.space({{1, pixels, 1, k}, DType::bf16});
      d.forward(
          "conv2d", {{"kernel", 1}, {"act", double(Act::silu)}},
          {d.put(x, {1, pixels, 1, c}), d.put(w, {k, 1, 1, c}), d.put(bias), d.put(r, {1, pixels, 1, k})},
          {y}, {}, {});
      const auto got = d.get<bf16>(y);
      for (int64_t p = 0; p < pixels; ++p)
        for (int64_t i = 0; i < k; ++i) {
          double sum = bias[i];
          for (int64_t j = 0; j < c; ++j) sum += double(to_float(x[p * c + j])) * to_float(w[i * c + j]);
          const double want = sum / (1 + std::exp(-sum)) + to_float(r[p * k + i]);
          ASSERT_NEAR(to_float(got[p * k + i]), want, std::abs(want) / 256 + 2e-5) << p << ' ' << i;
        }
    }
}

}  // namespace
}  // namespace gm::test
