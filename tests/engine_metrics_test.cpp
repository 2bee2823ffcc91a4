// Scores against numbers worked out by hand and against their definitions, counted naively from label lists.
#include "engine/metrics.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <utility>
#include <vector>

#include "kernels/common/error.h"
#include "kernels/common/philox.h"

namespace gm {
namespace {

ConfusionMatrix matrix(const std::vector<std::vector<int>>& rows) {
  ConfusionMatrix m(static_cast<int>(rows.size()));
  for (size_t t = 0; t < rows.size(); ++t)
    for (size_t p = 0; p < rows.size(); ++p)
      for (int k = 0; k < rows[t][p]; ++k) m.add(static_cast<int>(t), static_cast<int>(p));
  return m;
}

void expect_averages(const Averages& a, double precision, double recall, double f1) {
  EXPECT_NEAR(a.precision, precision, 1e-15);
  EXPECT_NEAR(a.recall, recall, 1e-15);
  EXPECT_NEAR(a.f1, f1, 1e-15);
}

TEST(Metrics, ByHand) {
  //            predicted 0  1  2
  const auto m = metrics_of(matrix({{5, 2, 1}, {0, 3, 1}, {2, 0, 6}}));
  EXPECT_EQ(m.n, 20);
  EXPECT_EQ(m.accuracy, 14.0 / 20);
  EXPECT_EQ(m.accuracy_within_one, 17.0 / 20);
  const double precision[] = {5.0 / 7, 3.0 / 5, 6.0 / 8}, recall[] = {5.0 / 8, 3.0 / 4, 6.0 / 8},
               f1[] = {10.0 / 15, 6.0 / 9, 12.0 / 16};
  const int64_t support[] = {8, 4, 8};
  for (int c = 0; c < 3; ++c) {
    EXPECT_EQ(m.per_class[c].precision, precision[c]);
    EXPECT_EQ(m.per_class[c].recall, recall[c]);
    EXPECT_EQ(m.per_class[c].f1, f1[c]);
    EXPECT_EQ(m.per_class[c].support, support[c]);
  }
  expect_averages(m.macro, (5.0 / 7 + 0.6 + 0.75) / 3, (0.625 + 0.75 + 0.75) / 3,
                  (2.0 / 3 + 2.0 / 3 + 0.75) / 3);
  expect_averages(m.weighted, 0.4 * 5 / 7 + 0.2 * 0.6 + 0.4 * 0.75, 0.7, 0.6 * 2 / 3 + 0.4 * 0.75);
}

TEST(Metrics, PerfectAndAllWrong) {
  const auto good = metrics_of(matrix({{3, 0}, {0, 7}}));
  EXPECT_EQ(good.accuracy, 1);
  expect_averages(good.macro, 1, 1, 1);
  expect_averages(good.weighted, 1, 1, 1);
  const auto bad = metrics_of(matrix({{0, 3, 0}, {0, 0, 2}, {4, 0, 0}}));
  EXPECT_EQ(bad.accuracy, 0);
  EXPECT_EQ(bad.accuracy_within_one, 5.0 / 9);
  expect_averages(bad.macro, 0, 0, 0);
  expect_averages(bad.weighted, 0, 0, 0);
}

TEST(Metrics, AbsentAndNeverPredictedClassesScoreZero) {
  // Class 1 does not occur but is predicted once; class 2 occurs but is never predicted; class 3 neither.
  const auto m = metrics_of(matrix({{4, 1, 0, 0}, {0, 0, 0, 0}, {5, 0, 0, 0}, {0, 0, 0, 0}}));
  for (int c : {1, 2, 3}) {
    EXPECT_EQ(m.per_class[c].precision, 0);
    EXPECT_EQ(m.per_class[c].recall, 0);
    EXPECT_EQ(m.per_class[c].f1, 0);
  }
  EXPECT_EQ(m.per_class[1].support, 0);
  EXPECT_EQ(m.per_class[2].support, 5);
  expect_averages(m.macro, 4.0 / 9 / 4, 0.8 / 4, 8.0 / 14 / 4);
  expect_averages(m.weighted, 4.0 / 9 / 2, 0.4, 8.0 / 14 / 2);
  const auto none = metrics_of(ConfusionMatrix(2));
  EXPECT_EQ(none.n, 0);
  EXPECT_EQ(none.accuracy, 0);
  expect_averages(none.weighted, 0, 0, 0);
}

TEST(Metrics, EqualsTheDefinitionsOnRandomPredictions) {
  for (uint32_t trial = 0; trial < 50; ++trial) {
    PhiloxStream rng(11, RngUse::sample, trial);
    const int classes = 2 + static_cast<int>(rng.below(9)), n = 1 + static_cast<int>(rng.below(300));
    std::vector<int> truth, predicted;
    ConfusionMatrix confusion(classes);
    for (int i = 0; i < n; ++i) {
      truth.push_back(static_cast<int>(rng.below(classes)));
      predicted.push_back(rng.uniform() < 0.6 ? truth.back() : static_cast<int>(rng.below(classes)));
      confusion.add(truth.back(), predicted.back());
    }
    const Metrics m = metrics_of(confusion);

    auto ratio = [](double a, double b) { return b > 0 ? a / b : 0.0; };
    double right = 0, near = 0;
    for (int i = 0; i < n; ++i) {
      right += truth[i] == predicted[i];
      near += std::abs(truth[i] - predicted[i]) <= 1;
    }
    Averages macro, weighted;
    for (int c = 0; c < classes; ++c) {
      double tp = 0, fp = 0, fn = 0;
      for (int i = 0; i < n; ++i) {
        tp += truth[i] == c && predicted[i] == c;
        fp += truth[i] != c && predicted[i] == c;
        fn += truth[i] == c && predicted[i] != c;
      }
      const double precision = ratio(tp, tp + fp), recall = ratio(tp, tp + fn),
                   f1 = ratio(2 * precision * recall, precision + recall);
      EXPECT_NEAR(m.per_class[c].precision, precision, 1e-12);
      EXPECT_NEAR(m.per_class[c].recall, recall, 1e-12);
      EXPECT_NEAR(m.per_class[c].f1, f1, 1e-12);
      EXPECT_EQ(m.per_class[c].support, tp + fn);
      macro.precision += precision / classes;
      macro.recall += recall / classes;
      macro.f1 += f1 / classes;
      weighted.precision += precision * (tp + fn) / n;
      weighted.recall += recall * (tp + fn) / n;
      weighted.f1 += f1 * (tp + fn) / n;
    }
    EXPECT_NEAR(m.accuracy, right / n, 1e-12);
    EXPECT_NEAR(m.accuracy_within_one, near / n, 1e-12);
    EXPECT_NEAR(m.weighted.recall, m.accuracy, 1e-12);
    for (auto [got, want] : {std::pair{m.macro, macro}, std::pair{m.weighted, weighted}}) {
      EXPECT_NEAR(got.precision, want.precision, 1e-12);
      EXPECT_NEAR(got.recall, want.recall, 1e-12);
      EXPECT_NEAR(got.f1, want.f1, 1e-12);
    }
  }
}

TEST(Metrics, ClassesOutOfRangeAreErrors) {
  EXPECT_THROW(ConfusionMatrix(0), Error);
  ConfusionMatrix m(3);
  EXPECT_THROW(m.add(3, 0), Error);
  EXPECT_THROW(m.add(0, -1), Error);
  EXPECT_EQ(m.total(), 0);
}

TEST(Metrics, BootstrapOfTheAccuracy) {
  auto interval = [](int correct, int n, uint64_t seed, double level = 0.95) {
    return bootstrap_metrics(matrix({{correct, n - correct}, {0, 0}}), seed, 2000, level).accuracy;
  };
  // The bootstrap of a mean of n zeros and ones is binomial: here mean 0.8, standard deviation 0.02.
  const Interval i = interval(320, 400, 7);
  EXPECT_NEAR(i.low, 0.8 - 1.96 * 0.02, 0.004);
  EXPECT_NEAR(i.high, 0.8 + 1.96 * 0.02, 0.004);
  const Interval again = interval(320, 400, 7), half = interval(320, 400, 7, 0.5);
  EXPECT_EQ(i.low, again.low);
  EXPECT_EQ(i.high, again.high);
  EXPECT_NEAR(half.low, 0.8 - 0.674 * 0.02, 0.004);
  EXPECT_NEAR(half.high, 0.8 + 0.674 * 0.02, 0.004);
  EXPECT_EQ(interval(5, 5, 0).low, 1);
  EXPECT_EQ(interval(0, 5, 0).high, 0);
  EXPECT_EQ(interval(0, 0, 0).high, 0);
  EXPECT_THROW(interval(3, 5, 0, 1), Error);
}

// Its time does not grow with the number of images.
TEST(Metrics, BootstrapOfBillionsOfImages) {
  const auto accuracy = [](int64_t right, int64_t wrong) {
    ConfusionMatrix m(2);
    m.add(0, 0, right - right / 2);
    m.add(0, 1, wrong);
    m.add(1, 1, right / 2);
    return bootstrap_metrics(m, 7).accuracy;
  };
  // A mean of 0.8 with the standard deviation sqrt(.8 * .2 / n) = 5.66e-6.
  const Interval many = accuracy(4'000'000'000, 1'000'000'000);
  EXPECT_NEAR(many.low, 0.8 - 1.96 * 5.66e-6, 1e-6);
  EXPECT_NEAR(many.high, 0.8 + 1.96 * 5.66e-6, 1e-6);
  // Three wrong: Poisson's 95 % lie from 0 to 7.
  const Interval rare = accuracy(4'999'999'997, 3);
  EXPECT_NEAR(rare.low, 1 - 7 / 5e9, 1e-11);
  EXPECT_EQ(rare.high, 1);
  // Twelve wrong: from 6 (2.0 % are below) to 19 (97.9 % are not above), or one beside them.
  const Interval few = accuracy(4'999'999'988, 12);
  EXPECT_NEAR(few.low, 1 - 19 / 5e9, 1.1 / 5e9);
  EXPECT_NEAR(few.high, 1 - 6 / 5e9, 1.1 / 5e9);
}

TEST(Metrics, BootstrapOfAllScores) {
  const auto confusion = matrix({{180, 20, 0}, {30, 150, 20}, {0, 0, 0}});
  const Metrics m = metrics_of(confusion);
  const MetricIntervals all = bootstrap_metrics(confusion, 7);
  // Of 200 images of a class 180 are right: the recall's standard deviation is sqrt(.9 * .1 / 200) = 0.0212.
  EXPECT_NEAR(all.per_class[0].recall.low, 0.9 - 1.96 * 0.0212, 0.006);
  EXPECT_NEAR(all.per_class[0].recall.high, 0.9 + 1.96 * 0.0212, 0.006);
  EXPECT_EQ(all.per_class[2].recall.high, 0);
  EXPECT_EQ(all.per_class[2].precision.high, 0);
  // 330 of 400 are right: standard deviation sqrt(.825 * .175 / 400) = 0.019.
  EXPECT_NEAR(all.accuracy.low, 0.825 - 1.96 * 0.019, 0.006);
  EXPECT_NEAR(all.accuracy.high, 0.825 + 1.96 * 0.019, 0.006);
  auto holds = [](const Interval& i, double value) { return i.low < value && value < i.high; };
  EXPECT_TRUE(holds(all.macro.f1, m.macro.f1));
  EXPECT_TRUE(holds(all.weighted.precision, m.weighted.precision));
  EXPECT_TRUE(holds(all.per_class[1].f1, m.per_class[1].f1));
  const MetricIntervals again = bootstrap_metrics(confusion, 7), other = bootstrap_metrics(confusion, 8);
  EXPECT_EQ(again.macro.f1.low, all.macro.f1.low);
  EXPECT_NE(other.macro.f1.low, all.macro.f1.low);
  EXPECT_EQ(bootstrap_metrics(matrix({{5, 0}, {0, 5}}), 0).macro.f1.low, 1);
  EXPECT_EQ(bootstrap_metrics(ConfusionMatrix(2), 0).per_class.size(), 2u);
}

// scipy.stats.binomtest(k, n).proportion_ci(method="wilson"), SciPy 1.17.1.
TEST(Metrics, WilsonInterval) {
  struct Case {
    int64_t correct, n;
    double low, high;
  };
  for (const Case& c : {Case{0, 10, 0, 0.27753279986288926},
                        {10, 10, 0.7224672001371109, 1},
                        {7, 10, 0.39677814746114526, 0.892208732593699},
                        {399, 424, 0.9144090778507384, 0.9597465054601843},
                        {1, 1, 0.20654931437723745, 1},
                        {212, 424, 0.452622006703788, 0.5473779932962121}}) {
    const Interval i = wilson_interval(c.correct, c.n);
    EXPECT_NEAR(i.low, c.low, 1e-14) << c.correct << " of " << c.n;
    EXPECT_NEAR(i.high, c.high, 1e-14) << c.correct << " of " << c.n;
  }
  EXPECT_EQ(wilson_interval(0, 0).low, 0);
  EXPECT_EQ(wilson_interval(0, 0).high, 1);
  EXPECT_THROW(wilson_interval(2, 1), Error);
  EXPECT_THROW(wilson_interval(-1, 1), Error);
}

}  // namespace
}  // namespace gm
