// Dropout masks: the share kept, what they depend on, and that every backend draws the same.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/op_direct.h"

namespace gm::test {

namespace {

Attrs attrs(double rate, int per_sample = 0, int stream = 0) {
  return {{"rate", rate}, {"per_sample", per_sample}, {"stream", stream}};
}

// Dropout of ones: 0 where dropped, 1 / (1 - rate) where kept.
std::vector<float> mask(const std::string& backend, const Attrs& a, const Shape& shape, uint64_t seed,
                        uint64_t step) {
  Direct d(backend);
  d.set_step(seed, step);
  const View x = d.put(std::vector<float>(shape.numel(), 1.f), shape), y = d.space(x.spec);
  d.forward("dropout", a, {x}, {y});
  return d.get<float>(y);
}

double kept(const std::vector<float>& m) {
  double n = 0;
  for (float v : m) n += v != 0;
  return n / double(m.size());
}
double agreement(const std::vector<float>& a, const std::vector<float>& b) {
  double n = 0;
  for (size_t i = 0; i < a.size(); ++i) n += (a[i] != 0) == (b[i] != 0);
  return n / double(a.size());
}
double four_sigma(double p, size_t n) { return 4 * std::sqrt(p * (1 - p) / double(n)); }

}  // namespace

TEST(OpDropout, KeepsTheRightShare) {
  for (double rate : {0.1, 0.5, 0.8}) {
    const auto m = mask("cpu", attrs(rate), {1000, 1000}, 11, 0);
    EXPECT_NEAR(kept(m), 1 - rate, four_sigma(rate, m.size()));
    for (float v : m)
      if (v != 0) ASSERT_FLOAT_EQ(v, float(1 / (1 - rate)));
  }
}

TEST(OpDropout, DropsWholeSamples) {
  const int64_t samples = 20000, unit = 3;
  const auto m = mask("cpu", attrs(0.2, 1), {samples, unit}, 5, 2);
  std::vector<float> first;
  for (int64_t i = 0; i < samples; ++i) {
    first.push_back(m[i * unit]);
    for (int64_t k = 1; k < unit; ++k) ASSERT_EQ(m[i * unit + k], m[i * unit]) << "sample " << i;
  }
  EXPECT_NEAR(kept(first), 0.8, four_sigma(0.2, first.size()));
}

TEST(OpDropout, SharedMasksAreTheFirstSamples) {
  for (const auto& backend : backends())
    for (const int64_t unit : {48, 1030}) {
      Attrs shared = attrs(0.3, 0, 4);
      shared.set("shared", 1);
      const auto m = mask(backend, shared, {5, unit}, 21, 3),
                 alone = mask("cpu", attrs(0.3, 0, 4), {1, unit}, 21, 3);
      for (int64_t i = 0; i < 5 * unit; ++i) ASSERT_EQ(m[i], alone[i % unit]) << backend << " " << i;
    }
}

TEST(OpDropout, DependsOnSeedStepAndStreamOnly) {
  const Shape shape{500, 400};
  for (int per_sample : {0, 1}) {
    // Independent masks with share p agree on 1 - 2p(1-p) of the draws.
    const Shape s = per_sample ? Shape{200000, 1} : shape;
    const double rate = 0.3, chance = 1 - 2 * rate * (1 - rate), slack = four_sigma(chance, s.numel());
    const auto base = mask("cpu", attrs(rate, per_sample, 1), s, 42, 7);
    EXPECT_EQ(base, mask("cpu", attrs(rate, per_sample, 1), s, 42, 7));
    EXPECT_NEAR(agreement(base, mask("cpu", attrs(rate, per_sample, 2), s, 42, 7)), chance, slack)
        << "stream";
    EXPECT_NEAR(agreement(base, mask("cpu", attrs(rate, per_sample, 1), s, 42, 8)), chance, slack) << "step";
    EXPECT_NEAR(agreement(base, mask("cpu", attrs(rate, per_sample, 1), s, 43, 7)), chance, slack) << "seed";
  }
}

TEST(OpDropout, NeighboursAreIndependent) {
  const auto m = mask("cpu", attrs(0.3), {1 << 20}, 9, 1);
  for (size_t distance : {1, 2, 3, 4, 8, 256}) {
    const std::vector<float> a(m.begin(), m.end() - distance), b(m.begin() + distance, m.end());
    EXPECT_NEAR(agreement(a, b), 0.58, 1.5 * four_sigma(0.58, a.size())) << "distance " << distance;
  }
}

TEST(OpDropout, SameMaskOnEveryBackendAndInBackward) {
  for (const auto& backend : backends())
    for (int per_sample : {0, 1})
      for (Shape shape : {Shape{13, 7, 3}, Shape{6, 64}, Shape{1030}}) {
        const Attrs a = attrs(0.4, per_sample, 3);
        const auto want = mask("cpu", a, shape, 77, 5);
        EXPECT_EQ(mask(backend, a, shape, 77, 5), want) << backend;

        Direct d(backend);
        d.set_step(77, 5);
        const View dy = d.put(std::vector<float>(shape.numel(), 1.f), shape), dx = d.space(dy.spec);
        d.backward("dropout", a, {View{nullptr, dy.spec}}, {}, {dy}, {{dx, GradMode::overwrite}});
        EXPECT_EQ(d.get<float>(dx), want) << backend;
      }
}

TEST(OpDropout, RateZeroAndInferenceAreTheIdentity) {
  std::vector<float> values;
  for (int i = 0; i < 1030; ++i) values.push_back(0.37f * float(i) - 100);
  for (const auto& backend : backends())
    for (int per_sample : {0, 1})
      for (double rate : {0., 0.5}) {
        Direct d(backend);
        if (rate == 0) d.set_step(1, 1);  // without a step nothing is dropped at any rate
        const View x = d.put(values, {103, 10}), y = d.space(x.spec);
        d.forward("dropout", attrs(rate, per_sample), {x}, {y});
        EXPECT_EQ(d.get<float>(y), values) << backend;
      }
}

TEST(OpDropout, RefusesARateOfOne) {
  const TensorSpec x{{2, 2}, DType::f32};
  EXPECT_THROW(find_op("dropout").infer(attrs(1), std::span(&x, 1)), Error);
}

}  // namespace gm::test
