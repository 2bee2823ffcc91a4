// 1x1 convolutions with their weights in registers, and of many channels: which shapes the kernels take, how
// they are cut, and what they compute.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "kernels/common/card_limits.h"
#include "kernels/conv2d/conv2d_deep.h"
#include "tests/op_direct.h"
#include "tests/pixel_products.h"

namespace gm::test {
namespace {

bool takes(const ConvGeometry& g) { return pointwise_conv(g).has_value(); }

TEST(ConvPointwise, TakesWhatItIsFor) {
  const ConvGeometry g = pixel_product(1000, 24, 144);
  EXPECT_TRUE(takes(g));
  EXPECT_TRUE(takes(pixel_product(1, 8, 8)));
  EXPECT_TRUE(takes(pixel_product(1, 256, 1536)));
  EXPECT_TRUE(takes(pixel_product(1, 240, 40))) << "a projection";
  EXPECT_FALSE(takes(pixel_product(1, 264, 1536))) << "more weights than registers";
  EXPECT_FALSE(takes(pixel_product(1, 20, 144)));
  EXPECT_FALSE(takes(pixel_product(1, 24, 100)));
  EXPECT_FALSE(takes(pixel_product(INT32_MAX, 24, 144)));
  ConvGeometry f32 = g, wide = g, strided = g, padded = g;
  f32.dtype = DType::f32, wide.kernel = 3, strided.stride = 2, padded.pad_left = 1;
  for (const ConvGeometry& other : {f32, wide, strided, padded}) EXPECT_FALSE(takes(other));
}

TEST(ConvPointwise, EveryWarpHasChannelsAndEveryChannelAWarp) {
  for (int c = 8; c <= 256; c += 8)
    for (int k = 8; k <= 2048; k += 8)
      for (int64_t pixels : {1, 63, 64, 65, 12544 * 256}) {
        const auto p = pointwise_conv(pixel_product(pixels, c, k));
        ASSERT_TRUE(p);
        SCOPED_TRACE(std::to_string(c) + " -> " + std::to_string(k));
        check_tiles(*p);
        ASSERT_LE(p->tiles_bytes(), kSmallestShared);
      }
  for (int units = 1; units <= 32; ++units) {
    check_division(units);
    check_banks(units | 1);
  }
}

// Sums in f32, rounded once: each compiled number of steps, on every card that there is.
TEST(ConvPointwise, ResultsAreRoundedOnce) {
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
      const auto x = rounded(noise(1, pixels * c, 0, 0.6f)), w = rounded(noise(2, k * c, 0, 0.6f)),
                 r = rounded(noise(3, pixels * k, 0, 0.6f));
      std::vector<float> bias(static_cast<size_t>(k));
      for (int64_t i = 0; i < k; ++i) bias[i] = static_cast<float>(std::sin(double(i)));
      const View y = d.space({{1, pixels, 1, k}, DType::bf16});
      d.forward(
          "conv2d", {{"kernel", 1}, {"act", Act::silu}},
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

TEST(ConvDeep, TakesWhatItIsFor) {
  ConvGeometry g = pixel_product(1000, 960, 160);
  const auto p = deep_conv(g, true);
  ASSERT_TRUE(p);
  const std::array plan{p->n, p->columns, p->slices, p->tiles, p->stages}, wanted{10, 2, 1, 8, 30};
  EXPECT_EQ(plan, wanted);
  EXPECT_TRUE(deep_conv(pixel_product(1, 8, 8), false));
  ConvGeometry many = g, f32 = g, wide = g;
  many.n = 1000, many.h = many.oh = 1;
  EXPECT_TRUE(deep_conv(many, false));
  EXPECT_FALSE(deep_conv(many, true)) << "an image a pixel: more factors than shared memory holds";
  f32.dtype = DType::f32, wide.kernel = 3;
  for (const ConvGeometry& other :
       {f32, wide, pixel_product(1, 300, 160), pixel_product(1, 1 << 18, 1 << 13)})
    EXPECT_FALSE(deep_conv(other, true));
}

TEST(ConvDeep, PlansFitEveryShape) {
  check_banks(kDeepPitch);
  for (int k = 8; k <= 2048; k += 8)
    for (int size : {1, 3, 7, 11, 12, 14, 56}) {
      ConvGeometry g = pixel_product(size * size, 264, k);
      g.n = 37;
      const auto p = deep_conv(g, true);
      if (!p) {
        ASSERT_LE(size, 1);
        continue;
      }
      SCOPED_TRACE(std::to_string(size) + " px, " + std::to_string(k));
      ASSERT_TRUE(p->n == 4 || p->n == 6 || p->n == 8 || p->n == 10);  // what is compiled
      ASSERT_GE(p->slices * p->filters(), k);
      ASSERT_LT((p->slices - 1) * p->filters(), k);
      ASSERT_GE(p->tiles * kDeepPixels, p->pixels);
      ASSERT_GE(p->stages * kDeepChannels, p->c);
      ASSERT_LE(p->shared_bytes(), kSmallestShared);
      for (int first = 0; first < p->pixels; first += kDeepPixels) {  // the images that a tile meets
        const int last = std::min(first + kDeepPixels, p->pixels) - 1;
        ASSERT_LT(last / p->image_pixels - first / p->image_pixels, p->images);
      }
    }
}

}  // namespace
}  // namespace gm::test
