// What is drawn for an image in training and in evaluation, and what it does.
#include <algorithm>
#include <cmath>
#include <numbers>
#include <set>
#include <type_traits>

#include "tests/data_test_util.h"
#include "tests/transformed_images.h"

namespace gm {
namespace {

using namespace test;

TEST(DataTransform, FlipsOccurInAllFourWays) {
  Image image = noise(8, 8);
  TransformConfig config = TransformConfig::keras(8);
  config.rotation_deg = config.shear_deg = 0;
  config.zoom_min = config.zoom_max = 1;
  std::set<int> seen;
  for (uint32_t row = 0; row < 40; ++row) {
    auto out = transformed(image, config, true, 1, 0, row);
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
    auto out = transformed(image, config, true, 1, 0, row);
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
  each(transformed(image, TransformConfig::gz(100)), [&](int x, int y, int c, float v) {
    float sum = 0;
    for (int k = 0; k < 4; ++k) sum += at(image, 32 + 2 * x + k % 2, 32 + 2 * y + k / 2, c);
    ASSERT_NEAR(v, sum / 4, 1e-3);
  });
  // An image of half the reference size shows the same sky with a crop of half the size.
  Image half = noise(132, 132);
  each(transformed(half, TransformConfig::gz(50)), [&](int x, int y, int c, float v) {
    float sum = 0;
    for (int k = 0; k < 4; ++k) sum += at(half, 16 + 2 * x + k % 2, 16 + 2 * y + k / 2, c);
    ASSERT_NEAR(v, sum / 4, 1e-3);
  });
  // The 424 px originals: the same 200 px of the centre.
  Image whole = noise(424, 424);
  each(transformed(whole, TransformConfig::gz(200)),
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
    auto out = transformed(image, config, true, 3, 0, row);
    double crop = 2 * out[(32 * 64 + 0) * 3] * 64 / 63;
    least = std::min(least, crop);
    most = std::max(most, crop);
  }
  EXPECT_GT(least, 158);
  EXPECT_LT(least, 166);
  EXPECT_LT(most, 242);
  EXPECT_GT(most, 234);
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
  auto base = transformed(image, plain, true);

  TransformConfig brightness = plain;
  brightness.colour.brightness = .2;
  auto out = transformed(image, brightness, true);
  double factor = out[0] / base[0];
  EXPECT_TRUE(factor > .8 && factor < 1.2 && std::abs(factor - 1) > 1e-3) << factor;
  for (size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i], base[i] * factor, 1e-2);

  TransformConfig contrast = plain;
  contrast.colour.contrast = .2;
  out = transformed(image, contrast, true);
  EXPECT_NEAR(mean_grey(out), mean_grey(base), 1e-2);
  double c0 = (out[0] - mean_grey(base)) / (base[0] - mean_grey(base));
  for (size_t i = 0; i < out.size(); ++i)
    ASSERT_NEAR(out[i] - mean_grey(base), c0 * (base[i] - mean_grey(base)), 2e-2);

  // Contrast is about the mean of the picture as brightness has made it.
  AugmentDraw both;
  both.colour.brightness = .75f;
  both.colour.contrast = .5f;
  Transform(plain, true).apply(image, both, out.data());
  for (size_t i = 0; i < out.size(); ++i)
    ASSERT_NEAR(out[i], .75 * (mean_grey(base) + .5 * (base[i] - mean_grey(base))), 1e-2);

  TransformConfig colour = plain;
  colour.colour.saturation = .2;
  colour.colour.hue = .1;
  out = transformed(image, colour, true);
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
    auto a = transformed(image, config, true, 9, 4, 1234), b = transformed(image, config, true, 9, 4, 1234);
    EXPECT_EQ(a, b);
    each(a, [](int, int, int, float v) { ASSERT_TRUE(v >= 0 && v <= 255) << v; });
    EXPECT_NE(a, transformed(image, config, true, 10, 4, 1234)) << "seed";
    EXPECT_NE(a, transformed(image, config, true, 9, 5, 1234)) << "epoch";
    EXPECT_NE(a, transformed(image, config, true, 9, 4, 1235)) << "row";
    EXPECT_EQ(transformed(image, config, false, 1, 1, 1), transformed(image, config, false, 2, 2, 2))
        << "evaluation draws nothing";
  }
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
  const auto as_is = transformed(image, TransformConfig::none(16), true, 1, 0, 0);
  const auto drawn = [&](const char* key, auto change) {
    TransformConfig config = TransformConfig::none(16);
    change(config);
    bool other = false;
    for (uint32_t row = 0; row < 20; ++row)
      other = other || transformed(image, config, true, 1, 0, row) != as_is;
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
