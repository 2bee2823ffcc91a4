// Mixup and CutMix: the distribution of their draws, and what they do to a batch.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/mix/mix.h"
#include "tests/op_direct.h"

namespace gm::test {
namespace {

// Beta(a, a) has mean 1/2, variance 1 / (4 (2 a + 1)) and kurtosis 3 (2 a + 1) / (2 a + 3).
TEST(OpMix, LambdaIsBetaDistributed) {
  constexpr int kDraws = 40000;
  for (const float alpha : {0.2f, 0.5f, 1.f}) {
    double sum = 0, squares = 0, fourth = 0;
    for (int step = 0; step < kDraws; ++step) {
      const StepState state{7, static_cast<uint64_t>(step)};
      const double d = mix_draw({alpha, 0}, &state, 8, 8).weight - 0.5;
      sum += d, squares += d * d, fourth += d * d * d * d;
    }
    const double variance = 1 / (4 * (2 * alpha + 1)), kurtosis = 3 * (2 * alpha + 1) / (2 * alpha + 3);
    EXPECT_NEAR(sum / kDraws, 0, 4 * std::sqrt(variance / kDraws)) << alpha;
    EXPECT_NEAR(squares / kDraws / variance, 1, 0.03) << alpha;
    EXPECT_NEAR(fourth / kDraws / (variance * variance), kurtosis, 0.05) << alpha;
  }
}

TEST(OpMix, BoxesHaveTheAreaOfTheirLabelsAndReachEveryPixel) {
  std::vector<int> covered(12 * 20);
  int mixups = 0;
  for (int step = 0; step < 4000; ++step) {
    const StepState state{3, static_cast<uint64_t>(step)};
    const MixDraw cut = mix_draw({0, 1}, &state, 12, 20);
    int area = 0;
    for (int row = 0; row < 12; ++row)
      for (int column = 0; column < 20; ++column)
        if (cut.at(row, column) == 0) ++area, ++covered[row * 20 + column];
    EXPECT_FLOAT_EQ(cut.lambda, 1 - area / 240.f);
    mixups += mix_draw({0.3f, 1}, &state, 12, 20).weight != 1;
  }
  for (const int count : covered) EXPECT_GT(count, 200);
  EXPECT_NEAR(mixups / 4000., 0.5, 0.04);
}

TEST(OpMix, PairsShareImagesAndLabels) {
  for (const auto& backend : backends()) {
    Direct d(backend);
    d.set_step(1, 5);
    const int n = 4, unit = 3 * 3 * 2;
    std::vector<float> x(n * unit);
    for (int i = 0; i < n; ++i) std::fill_n(x.begin() + i * unit, unit, static_cast<float>(10 * i));
    const View y = d.space({{n, 3, 3, 2}, DType::f32}), t = d.space({{n, 4}, DType::f32});
    d.forward("mix", {{"mixup", 1}, {"cutmix", 0}, {"classes", 4}},
              {d.put(x, {n, 3, 3, 2}), d.put(std::vector<int32_t>{3, 1, 1, 0})}, {y, t});
    const auto pixels = d.get<float>(y), targets = d.get<float>(t);
    const float lambda = targets[3];  // of image 0
    EXPECT_GT(lambda, 0);
    EXPECT_LT(lambda, 1);
    EXPECT_NEAR(targets[0], 1 - lambda, 1e-6) << backend;  // the label of image 3
    EXPECT_FLOAT_EQ(targets[4 + 1], 1) << backend;         // images 1 and 2 have the same
    EXPECT_NEAR(pixels[0], 30 * (1 - lambda), 1e-4) << backend;
    EXPECT_NEAR(pixels[3 * unit], 30 * lambda, 1e-4) << backend;
    EXPECT_NEAR(pixels[unit], 10 * lambda + 20 * (1 - lambda), 1e-4) << backend;

    std::vector<float> soft(16);
    soft[0] = 0.25f, soft[1] = 0.75f, soft[4] = soft[8] = 1, soft[12 + 3] = 1;
    d.forward("mix", {{"mixup", 1}, {"cutmix", 0}, {"classes", 4}},
              {d.put(x, {n, 3, 3, 2}), d.put(soft, {n, 4})}, {y, t});
    const auto mixed = d.get<float>(t);
    EXPECT_NEAR(mixed[0], 0.25f * lambda, 1e-6) << backend;
    EXPECT_NEAR(mixed[1], 0.75f * lambda, 1e-6) << backend;
    EXPECT_NEAR(mixed[3], 1 - lambda, 1e-6) << backend;
    EXPECT_NEAR(mixed[12], 0.25f * (1 - lambda), 1e-6) << backend;
  }
}

}  // namespace
}  // namespace gm::test
