#include "data/transform.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <set>
#include <type_traits>

#include "engine/safetensors.h"
#include "kernels/common/philox.h"
#include "tests/data_test_util.h"

namespace gm {
namespace {

Image noise(int width, int height, uint32_t seed = 1) {
  Image image{width, height, std::vector<uint8_t>(static_cast<size_t>(width) * height * 3)};
  PhiloxStream rng(seed, RngUse::sample);
  for (auto& v : image.rgb) v = static_cast<uint8_t>(rng.below(256));
  return image;
}

float at(const Image& image, int x, int y, int c) {
  return image.rgb[(static_cast<size_t>(y) * image.width + x) * 3 + c];
}

std::vector<float> run(const Image& image, const TransformConfig& config, bool training = false,
                       uint64_t seed = 1, uint32_t epoch = 0, uint32_t row = 0) {
  std::vector<float> out(static_cast<size_t>(config.size) * config.size * 3, NAN);
  Transform(config, training).apply(image, seed, epoch, row, out.data());
  return out;
}

/// One resampling by hand, at the original scale.
std::vector<float> resampled(const Image& image, const Affine& affine, Border border, int size) {
  std::vector<float> out(static_cast<size_t>(size) * size * 3, NAN);
  augment_image(image, place_sample(image.width, image.height, affine, 1, 1, border, size), size, out.data());
  return out;
}

/// Calls check(x, y, c, value) on every element.
template <class F>
void each(const std::vector<float>& out, F&& check) {
  int size = static_cast<int>(std::lround(std::sqrt(out.size() / 3.0)));
  for (size_t i = 0; i < out.size(); ++i)
    check(static_cast<int>(i / 3) % size, static_cast<int>(i / 3) / size, static_cast<int>(i % 3), out[i]);
}

TEST(DataTransform, ImageOfTheRightSizeIsUsedAsIs) {
  Image image = noise(32, 32);
  for (auto config : {TransformConfig::none(32), TransformConfig::gz(32), TransformConfig::keras(32)})
    each(run(image, config), [&](int x, int y, int c, float v) { ASSERT_EQ(v, at(image, x, y, c)); });
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
    each(run(image, TransformConfig::none(5)), [&](int x, int y, int c, float v) {
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
  each(run(image, TransformConfig::none(size)), [&](int u, int v, int c, float value) {
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
  auto out = run(image, TransformConfig::none(4));
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

TEST(DataTransform, FlipsOccurInAllFourWays) {
  Image image = noise(8, 8);
  TransformConfig config = TransformConfig::keras(8);
  config.rotation_deg = config.shear_deg = 0;
  config.zoom_min = config.zoom_max = 1;
  std::set<int> seen;
  for (uint32_t row = 0; row < 40; ++row) {
    auto out = run(image, config, true, 1, 0, row);
    int way = -1;
    for (int k = 0; k < 4; ++k) {
      bool same = true;
      each(out, [&](int x, int y, int c, float v) {
        same = same && v == at(image, k & 1 ? 7 - x : x, k & 2 ? 7 - y : y, c);
      });
      if (same) way = k;
    }
    ASSERT_GE(way, 0) << "row " << row << " is no flip of the image";
    seen.insert(way);
  }
  EXPECT_EQ(seen.size(), 4u);
}

TEST(DataTransform, ShiftMovesByWholePixelsUpToThree) {
  Image image = noise(16, 16);
  TransformConfig config = TransformConfig::none(16);
  config.shift_px = 3;
  std::set<int> across, down;
  for (uint32_t row = 0; row < 200; ++row) {
    auto out = run(image, config, true, 1, 0, row);
    int found = 0;
    for (int dx = -3; dx <= 3; ++dx)
      for (int dy = -3; dy <= 3; ++dy) {
        bool same = true;
        each(out, [&](int x, int y, int c, float v) {
          same = same && v == at(image, std::clamp(x - dx, 0, 15), std::clamp(y - dy, 0, 15), c);
        });
        if (same) across.insert(dx), down.insert(dy), ++found;
      }
    ASSERT_EQ(found, 1) << "row " << row;
  }
  EXPECT_EQ(across.size(), 7u);
  EXPECT_EQ(down.size(), 7u);
}

TEST(DataTransform, EvaluationCropIsTheCentre200) {
  Image image = noise(264, 264);
  each(run(image, TransformConfig::gz(100)), [&](int x, int y, int c, float v) {
    float sum = 0;
    for (int k = 0; k < 4; ++k) sum += at(image, 32 + 2 * x + k % 2, 32 + 2 * y + k / 2, c);
    ASSERT_NEAR(v, sum / 4, 1e-3);
  });
  // An image of half the reference size shows the same sky with a crop of half the size.
  Image half = noise(132, 132);
  each(run(half, TransformConfig::gz(50)), [&](int x, int y, int c, float v) {
    float sum = 0;
    for (int k = 0; k < 4; ++k) sum += at(half, 16 + 2 * x + k % 2, 16 + 2 * y + k / 2, c);
    ASSERT_NEAR(v, sum / 4, 1e-3);
  });
  // The 424 px originals: the same 200 px of the centre.
  Image whole = noise(424, 424);
  each(run(whole, TransformConfig::gz(200)),
       [&](int x, int y, int c, float v) { ASSERT_EQ(v, at(whole, 112 + x, 112 + y, c)); });
}

TEST(DataTransform, TrainingCropStaysInItsRange) {
  // A picture whose red is the distance from the centre, in px: an edge pixel's red tells the crop.
  Image image{424, 424, std::vector<uint8_t>(424 * 424 * 3)};
  for (int y = 0; y < 424; ++y)
    for (int x = 0; x < 424; ++x)
      image.rgb[(y * 424 + x) * 3] = static_cast<uint8_t>(std::min(255.0, std::hypot(x - 211.5, y - 211.5)));
  TransformConfig config = TransformConfig::gz(64);
  config.colour = {};
  config.shift_px = 0;
  double least = 1e9, most = 0;
  for (uint32_t row = 0; row < 300; ++row) {
    auto out = run(image, config, true, 3, 0, row);
    double crop = 2 * out[(32 * 64 + 0) * 3] * 64 / 63;
    least = std::min(least, crop);
    most = std::max(most, crop);
  }
  EXPECT_GT(least, 158);
  EXPECT_LT(least, 166);
  EXPECT_LT(most, 242);
  EXPECT_GT(most, 234);
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

/// A whole chain of S2 worked out by hand: quarter turn, mirror, centre crop, area mean, brightness, shift.
TEST(DataTransform, S2ChainByHand) {
  Image image = noise(264, 264);
  for (auto& v : image.rgb) v = static_cast<uint8_t>(v / 2);  // brightness stays away from the clamp
  const Transform transform(TransformConfig::gz(100), true);
  AugmentDraw d;
  d.rotation = std::numbers::pi / 2;  // clockwise: what was at the left comes to the top
  d.flip_x = true;
  d.crop = 200;
  d.colour.brightness = 1.25;
  d.shift_x = 2;
  d.shift_y = -1;
  std::vector<float> out(100 * 100 * 3);
  transform.apply(image, d, out.data());
  each(out, [&](int x, int y, int c, float v) {
    float sum = 0;
    for (int k = 0; k < 4; ++k) {
      // Position in the turned and mirrored picture, in source px from the upper left corner of the crop.
      const int u = 2 * (x - 2) + k % 2, w = 2 * (y + 1) + k / 2;
      const int turned_x = 199 - u, turned_y = w;       // mirror back
      const int left = turned_y, top = 199 - turned_x;  // turn back: top row <- left column
      sum += at(image, 32 + left, 32 + top, c);
    }
    ASSERT_NEAR(v, 1.25f * sum / 4, 2e-2) << x << "," << y;
  });
}

TEST(DataTransform, ColourStepsDoWhatTheySay) {
  Image image = noise(16, 16);
  for (auto& v : image.rgb) v = static_cast<uint8_t>(80 + v / 4);  // away from the clamps
  TransformConfig plain = TransformConfig::none(16);
  auto grey = [](const float* p) { return .299 * p[0] + .587 * p[1] + .114 * p[2]; };
  auto mean_grey = [&](const std::vector<float>& v) {
    double sum = 0;
    for (size_t i = 0; i < v.size(); i += 3) sum += grey(&v[i]);
    return sum / (v.size() / 3);
  };
  auto base = run(image, plain, true);

  TransformConfig brightness = plain;
  brightness.colour.brightness = .2;
  auto out = run(image, brightness, true);
  double factor = out[0] / base[0];
  EXPECT_TRUE(factor > .8 && factor < 1.2 && std::abs(factor - 1) > 1e-3) << factor;
  for (size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i], base[i] * factor, 1e-2);

  TransformConfig contrast = plain;
  contrast.colour.contrast = .2;
  out = run(image, contrast, true);
  EXPECT_NEAR(mean_grey(out), mean_grey(base), 1e-2);
  double c0 = (out[0] - mean_grey(base)) / (base[0] - mean_grey(base));
  for (size_t i = 0; i < out.size(); ++i)
    ASSERT_NEAR(out[i] - mean_grey(base), c0 * (base[i] - mean_grey(base)), 2e-2);

  TransformConfig colour = plain;
  colour.colour.saturation = .2;
  colour.colour.hue = .1;
  out = run(image, colour, true);
  bool changed = false;
  for (size_t i = 0; i < out.size(); i += 3) {
    ASSERT_NEAR(grey(&out[i]), grey(&base[i]), 0.2) << "saturation and hue keep the grey";
    changed = changed || std::abs(out[i] - base[i]) > 1;
  }
  EXPECT_TRUE(changed);
}

TEST(DataTransform, ValuesStayIn0To255AndDrawsAreReproducible) {
  Image image = noise(264, 264);
  for (auto config : {TransformConfig::gz(64), TransformConfig::keras(64)}) {
    auto a = run(image, config, true, 9, 4, 1234), b = run(image, config, true, 9, 4, 1234);
    EXPECT_EQ(a, b);
    each(a, [](int, int, int, float v) { ASSERT_TRUE(v >= 0 && v <= 255) << v; });
    EXPECT_NE(a, run(image, config, true, 10, 4, 1234)) << "seed";
    EXPECT_NE(a, run(image, config, true, 9, 5, 1234)) << "epoch";
    EXPECT_NE(a, run(image, config, true, 9, 4, 1235)) << "row";
    EXPECT_EQ(run(image, config, false, 1, 1, 1), run(image, config, false, 2, 2, 2))
        << "evaluation draws nothing";
  }
}

TEST(DataTransform, SmallestAndLongImagesWork) {
  for (auto [w, h] : {std::pair{2, 2}, {2, 300}, {999, 3}})
    for (auto config : {TransformConfig::none(32), TransformConfig::gz(32), TransformConfig::keras(32)})
      for (bool training : {false, true})
        each(run(noise(w, h), config, training),
             [](int, int, int, float v) { ASSERT_TRUE(v >= 0 && v <= 255.01f) << v; });
}

TEST(DataTransform, RandomOperationsComeEquallyOftenWithTheirMagnitude) {
  TransformConfig config = TransformConfig::none(331);
  config.random_ops = 1;
  config.magnitude = 20;
  const Transform one(config, true);
  EXPECT_TRUE(one.recolours());
  const double third = 2.0 / 3;
  const int shift = 100;  // 150 of 331 px at magnitude 30
  int counts[8] = {}, positive[8] = {};
  const int n = 8000;
  for (int row = 0; row < n; ++row) {
    const AugmentDraw d = one.draw(5, 0, static_cast<uint32_t>(row));
    const double values[8] = {0,
                              d.rotation / (std::numbers::pi / 6 * third),
                              d.shear / (0.3 * third),
                              static_cast<double>(d.shift_x) / shift,
                              static_cast<double>(d.shift_y) / shift,
                              (d.colour.brightness - 1) / (0.9 * third),
                              (d.colour.contrast - 1) / (0.9 * third),
                              (d.colour.saturation - 1) / (0.9 * third)};
    int used = 0;
    for (int k = 1; k < 8; ++k) {
      if (values[k] == 0) continue;
      EXPECT_NEAR(std::abs(values[k]), 1, 1e-12) << k;
      EXPECT_EQ(used, 0) << "two operations";
      used = k;
      ++counts[0];
      ++counts[k];
      positive[k] += values[k] > 0;
    }
    if (used == 0) continue;
    EXPECT_EQ(d.colour.hue, 0);
    EXPECT_EQ(d.zoom_x, 1);
    EXPECT_FALSE(d.flip_x || d.flip_y);
  }
  // Seven of eight do something, never two at once; five standard deviations of a binomial.
  EXPECT_NEAR(counts[0], n * 7 / 8, 5 * std::sqrt(n * 7 / 64.0));
  for (int k = 1; k < 8; ++k) {
    EXPECT_NEAR(counts[k], n / 8, 5 * std::sqrt(n * 7 / 64.0)) << k;
    EXPECT_NEAR(positive[k], counts[k] / 2.0, 5 * std::sqrt(counts[k] / 4.0)) << k;
  }
}

TEST(DataTransform, RandomOperationsJoinTheOtherSteps) {
  TransformConfig config = TransformConfig::gz(64);
  const Transform plain(config, true);
  config.random_ops = 2;
  const Transform more(config, true);
  const double turn = std::numbers::pi / 6 * 0.3;
  std::set<long> turns;
  for (uint32_t row = 0; row < 2000; ++row) {
    const AugmentDraw a = plain.draw(1, 2, row), b = more.draw(1, 2, row);
    EXPECT_EQ(a.crop, b.crop);
    EXPECT_EQ(a.colour.hue, b.colour.hue);
    EXPECT_EQ(a.flip_x, b.flip_x);
    const double steps = (b.rotation - a.rotation) / turn;
    EXPECT_NEAR(steps, std::round(steps), 1e-9);
    turns.insert(std::lround(steps));
    const double factor = b.colour.contrast / a.colour.contrast;
    const double allowed[] = {1, 1.27, 0.73, 1.27 * 1.27, 0.73 * 0.73, 1.27 * 0.73};
    EXPECT_TRUE(std::any_of(std::begin(allowed), std::end(allowed), [&](double f) {
      return std::abs(f - factor) < 1e-12;
    })) << factor;
  }
  EXPECT_EQ(turns, (std::set<long>{-2, -1, 0, 1, 2}));
  EXPECT_EQ(Transform(config, false).draw(1, 2, 3).rotation, 0);
}

// A card's kernel goes by recolours() alone.
TEST(DataTransform, RecoloursSaysWhetherASampleEverDoes) {
  TransformConfig config = TransformConfig::none(16);
  std::set<std::string> recolouring;
  TransformConfig::each_number(config, [&](const char* key, auto& setting, double, double most) {
    const auto nothing = setting;
    setting = static_cast<std::remove_reference_t<decltype(setting)>>(most);
    const Transform training(config, true);
    bool seen = false;
    for (uint32_t row = 0; row < 50; ++row) seen = seen || training.sample(20, 20, 1, 0, row).recolour;
    EXPECT_EQ(training.recolours(), seen) << key;
    EXPECT_FALSE(Transform(config, false).recolours()) << key;
    if (seen) recolouring.insert(key);
    setting = nothing;
  });
  EXPECT_EQ(recolouring,
            (std::set<std::string>{"brightness", "contrast", "saturation", "hue", "random_ops"}));
}

// Ranges count by themselves, not only under a preset.
TEST(DataTransform, EveryRangeIsDrawn) {
  const Image image = noise(16, 16);
  const auto as_is = run(image, TransformConfig::none(16), true, 1, 0, 0);
  const auto drawn = [&](const char* key, auto change) {
    TransformConfig config = TransformConfig::none(16);
    change(config);
    bool other = false;
    for (uint32_t row = 0; row < 20; ++row) other = other || run(image, config, true, 1, 0, row) != as_is;
    EXPECT_EQ(other, std::string(key) != "crop_eval" && std::string(key) != "magnitude") << key;
    EXPECT_EQ(config.random(), other) << key;
  };
  TransformConfig keys = TransformConfig::none(16);
  TransformConfig::each_number(keys, [&](const char* key, auto&, double, double most) {
    drawn(key, [&](TransformConfig& config) {
      TransformConfig::each_number(config, [&](const char* each, auto& setting, double, double) {
        if (std::string(each) == key)
          setting = static_cast<std::remove_reference_t<decltype(setting)>>(most / 2);
      });
    });
  });
  drawn("flip_x", [](TransformConfig& c) { c.flip_x = true; });
  drawn("flip_y", [](TransformConfig& c) { c.flip_y = true; });
  drawn("zoom", [](TransformConfig& c) { c.zoom_max = 1.5; });
  drawn("crop", [](TransformConfig& c) { c.crop_min = 100, c.crop_max = 200; });
}

TEST(DataTransform, RangesAreChecked) {
  auto with = [](auto change) {
    TransformConfig config = TransformConfig::gz(64);
    change(config);
    return test::error_of([&] { Transform(config, true); });
  };
  EXPECT_EQ(with([](auto&) {}), "");
  EXPECT_EQ(with([](auto& c) { c.crop_eval = 5000; }), "augment.crop_eval is out of range [0, 4096]");
  EXPECT_NE(with([](auto& c) { c.shift_px = 64; }), "");
  EXPECT_NE(with([](auto& c) { c.size = 0; }), "");
  EXPECT_NE(with([](auto& c) { c.crop_min = 300; }), "");
  EXPECT_NE(with([](auto& c) { c.zoom_min = 0; }), "");
  EXPECT_NE(with([](auto& c) { c.colour.hue = NAN; }), "");
  EXPECT_NE(with([](auto& c) { c.shift_px = -1; }), "");
  EXPECT_NE(with([](auto& c) { c.random_ops = 5; }), "");
  EXPECT_NE(with([](auto& c) { c.magnitude = 31; }), "");
}

}  // namespace
}  // namespace gm
