// How pixels are sampled: scales, borders, affine maps, beside Keras's own.
#include <algorithm>
#include <numbers>
#include <utility>

#include "engine/safetensors.h"
#include "tests/data_test_util.h"
#include "tests/transformed_images.h"

namespace gm {
namespace {

using namespace test;

TEST(DataTransform, ImageOfTheRightSizeIsUsedAsIs) {
  Image image = noise(32, 32);
  for (auto config : {TransformConfig::none(32), TransformConfig::gz(32), TransformConfig::keras(32)})
    each(transformed(image, config), [&](int x, int y, int c, float v) { ASSERT_EQ(v, at(image, x, y, c)); });
}

TEST(DataTransform, IdentityAndQuarterTurnAreExact) {
  Image image = noise(9, 9);
  each(resampled(image, Affine{}, Border::zero, 9),
       [&](int x, int y, int c, float v) { ASSERT_EQ(v, at(image, x, y, c)); });
  each(resampled(image, Affine{0, -1, 9, 1, 0, 0}, Border::zero, 9),  // x = 9 - v, y = u
       [&](int x, int y, int c, float v) { ASSERT_EQ(v, at(image, 8 - y, x, c)); });
}

TEST(DataTransform, WholeRatiosAreExactAreaMeans) {
  for (int k = 2; k <= 25; ++k) {  // above 4 in two steps
    Image image = noise(5 * k, 5 * k, k);
    each(transformed(image, TransformConfig::none(5)), [&](int x, int y, int c, float v) {
      double sum = 0;
      for (int j = 0; j < k; ++j)
        for (int i = 0; i < k; ++i) sum += at(image, x * k + i, y * k + j, c);
      ASSERT_NEAR(v, sum / (k * k), 1e-3) << "ratio " << k;
    });
  }
}

TEST(DataTransform, OtherRatiosComeCloseToAreaMeans) {
  // A smooth picture, as galaxies are: sampling the area and integrating it must agree.
  Image image{100, 90, std::vector<uint8_t>(100 * 90 * 3)};
  for (int y = 0; y < 90; ++y)
    for (int x = 0; x < 100; ++x)
      for (int c = 0; c < 3; ++c)
        image.rgb[(y * 100 + x) * 3 + c] =
            static_cast<uint8_t>(127 + 90 * std::sin(x * 0.2 + c) * std::cos(y * 0.15));
  int size = 37;
  each(transformed(image, TransformConfig::none(size)), [&](int u, int v, int c, float value) {
    double rx = 100.0 / size, ry = 90.0 / size, sum = 0, area = 0;
    for (int y = static_cast<int>(v * ry); y < (v + 1) * ry && y < 90; ++y)
      for (int x = static_cast<int>(u * rx); x < (u + 1) * rx && x < 100; ++x) {
        double w = (std::min(x + 1.0, (u + 1) * rx) - std::max<double>(x, u * rx)) *
                   (std::min(y + 1.0, (v + 1) * ry) - std::max<double>(y, v * ry));
        sum += w * at(image, x, y, c);
        area += w;
      }
    ASSERT_NEAR(value, sum / area, 3.0);
  });
}

TEST(DataTransform, EnlargingIsBilinear) {
  Image image{2, 2, {0, 0, 0, 100, 100, 100, 40, 40, 40, 140, 140, 140}};
  auto out = transformed(image, TransformConfig::none(4));
  const float expected[4][4] = {{0, 25, 75, 100}, {10, 35, 85, 110}, {30, 55, 105, 130}, {40, 65, 115, 140}};
  each(out, [&](int x, int y, int, float v) { ASSERT_FLOAT_EQ(v, expected[y][x]); });
}

TEST(DataTransform, FillRules) {
  Image image = noise(4, 4);
  auto index = [](int i, Border fill) {
    if (i >= 0 && i < 4) return i;
    if (fill == Border::zero) return -1;
    return fill == Border::edge ? std::clamp(i, 0, 3) : i < 0 ? -1 - i : 7 - i;
  };
  for (Border fill : {Border::edge, Border::reflect, Border::zero}) {
    each(resampled(image, Affine{1, 0, -2, 0, 1, -2}, fill, 8), [&](int u, int v, int c, float value) {
      int x = index(u - 2, fill), y = index(v - 2, fill);
      ASSERT_EQ(value, x < 0 || y < 0 ? 0.0f : at(image, x, y, c));
    });
  }
}

/// Pixels of Keras's own apply_affine_transform, flips after it, for a dozen draws: see
/// tests/golden/make_keras_affine_golden.py.
TEST(DataTransform, KerasAffineMatchesKeras) {
  const TensorFile golden =
      read_safetensors(std::string(GM_SOURCE_DIR) + "/tests/golden/keras_affine.safetensors");
  const std::vector<float> pixels = golden.at("image").floats(), draws = golden.at("draws").floats();
  const Shape shape = golden.at("outputs").spec.shape;  // (draws, size, size, 3)
  const int size = static_cast<int>(shape[1]);
  const std::vector<float> outputs = golden.at("outputs").floats();
  Image image{size, size, {pixels.begin(), pixels.end()}};
  const Transform transform(TransformConfig::keras(size), true);
  std::vector<float> out(static_cast<size_t>(size) * size * 3);
  for (int64_t k = 0; k < shape[0]; ++k) {
    const float* p = &draws[k * 6];  // theta and shear in degrees, zx, zy, horizontal and vertical flip
    AugmentDraw d;
    d.rotation = -p[0] * std::numbers::pi / 180;
    d.shear = p[1] * std::numbers::pi / 180;
    d.zoom_x = p[2], d.zoom_y = p[3];
    d.flip_x = p[4] != 0, d.flip_y = p[5] != 0;
    transform.apply(image, d, out.data());
    for (size_t i = 0; i < out.size(); ++i)
      ASSERT_NEAR(out[i], outputs[k * out.size() + i], 0.02) << "draw " << k << ", element " << i;
  }
}

TEST(DataTransform, SmallestAndLongImagesWork) {
  for (auto [w, h] : {std::pair{2, 2}, {2, 300}, {999, 3}})
    for (auto config : {TransformConfig::none(32), TransformConfig::gz(32), TransformConfig::keras(32)})
      for (bool training : {false, true})
        each(transformed(noise(w, h), config, training),
             [](int, int, int, float v) { ASSERT_TRUE(v >= 0 && v <= 255.01f) << v; });
}

}  // namespace
}  // namespace gm
