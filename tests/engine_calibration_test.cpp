// Scores and calibration against scikit-learn (golden/make_sklearn_golden.py) and against hand-made cases.
#include "engine/calibration.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/metrics.h"
#include "kernels/common/error.h"
#include "kernels/common/philox.h"

namespace gm {
namespace {

std::vector<ScoredImage> images_of(const nlohmann::json& c) {
  std::vector<ScoredImage> images;
  for (size_t i = 0; i < c["labels"].size(); ++i)
    images.push_back({c["logits"][i].get<std::vector<float>>(), c["labels"][i].get<int>()});
  return images;
}

std::vector<const ScoredImage*> pointers(const std::vector<ScoredImage>& images) {
  std::vector<const ScoredImage*> list;
  for (const auto& i : images) list.push_back(&i);
  return list;
}

void expect_three(const Averages& got, const nlohmann::json& want) {
  EXPECT_NEAR(got.precision, want[0].get<double>(), 1e-12);
  EXPECT_NEAR(got.recall, want[1].get<double>(), 1e-12);
  EXPECT_NEAR(got.f1, want[2].get<double>(), 1e-12);
}

TEST(Calibration, AgreesWithScikitLearn) {
  std::ifstream file(std::string(GM_SOURCE_DIR) + "/tests/golden/sklearn_scores.json");
  const auto golden = nlohmann::json::parse(file);
  ASSERT_EQ(golden["cases"].size(), 5u);
  for (const auto& c : golden["cases"]) {
    const int classes = c["classes"];
    SCOPED_TRACE(classes);
    const auto images = images_of(c);
    ConfusionMatrix confusion(classes);
    for (const auto& i : images)
      confusion.add(i.label, int(std::max_element(i.logits.begin(), i.logits.end()) - i.logits.begin()));
    const Metrics m = metrics_of(confusion);
    EXPECT_NEAR(m.accuracy, c["accuracy"].get<double>(), 1e-12);
    expect_three(m.macro, c["macro"]);
    expect_three(m.weighted, c["weighted"]);
    for (int t = 0; t < classes; ++t) {
      for (int p = 0; p < classes; ++p) EXPECT_EQ(confusion.at(t, p), c["confusion"][t][p].get<int64_t>());
      const ClassScores& s = m.per_class[t];
      expect_three({s.precision, s.recall, s.f1},
                   {c["per_class"][0][t], c["per_class"][1][t], c["per_class"][2][t]});
    }
    const Calibration plain =
        calibration_of(images, std::vector<double>(images.size(), 1), golden["bins"].get<int>());
    EXPECT_NEAR(plain.nll, c["log_loss"].get<double>(), 1e-12);
    EXPECT_NEAR(plain.ece, c["ece"].get<double>(), 1e-12);
    EXPECT_NEAR(plain.brier, c["brier"].get<double>(), 1e-12);
    // A minimum is known to half the digits of its value; the value itself must be SciPy's.
    const double t = fit_temperature(pointers(images));
    EXPECT_NEAR(t, c["temperature"].get<double>(), 1e-6 * t);
    EXPECT_NEAR(calibration_of(images, std::vector<double>(images.size(), t)).nll,
                c["log_loss_calibrated"].get<double>(), 1e-12);
  }
}

TEST(Calibration, ByHand) {
  // Two classes, logit differences of ln 3 and ln 9: confidences 0.75 and 0.9.
  const float three = std::log(3.f), nine = std::log(9.f);
  std::vector<ScoredImage> images;
  for (int i = 0; i < 4; ++i) images.push_back({{three, 0}, i < 2 ? 0 : 1});  // half right
  for (int i = 0; i < 6; ++i) images.push_back({{0, nine}, 1});               // all right
  const Calibration c = calibration_of(images, std::vector<double>(10, 1), 10);
  EXPECT_EQ(c.bins[7].n, 4);
  EXPECT_EQ(c.bins[7].correct, 2);
  EXPECT_NEAR(c.bins[7].confidence, 0.75, 1e-7);
  EXPECT_EQ(c.bins[7].accuracy, 0.5);
  EXPECT_EQ(c.bins[8].n + c.bins[9].n, 6);
  EXPECT_NEAR(c.ece, 0.4 * 0.25 + 0.6 * 0.1, 1e-6);
  EXPECT_NEAR(c.nll, -(2 * std::log(0.75) + 2 * std::log(0.25) + 6 * std::log(0.9)) / 10, 1e-6);
  EXPECT_NEAR(c.brier, (2 * 2 * 0.0625 + 2 * 2 * 0.5625 + 6 * 2 * 0.01) / 10, 1e-6);
  // A temperature of 2 takes the square root of the odds.
  const Calibration softer = calibration_of(images, std::vector<double>(10, 2), 10);
  EXPECT_NEAR(softer.bins[6].confidence, std::sqrt(3) / (1 + std::sqrt(3)), 1e-6);
  EXPECT_EQ(calibration_of({}, {}).ece, 0);
  // A bin has its upper end.
  EXPECT_EQ(calibration_of({{{0, 0}, 1}}, {1}, 2).bins[0].n, 1);
}

TEST(Calibration, TemperatureUndoesAScale) {
  // Labels drawn from softmax(z): the best temperature of 3 z is 3, up to the noise of the labels.
  PhiloxStream rng(3, RngUse::sample);
  std::vector<ScoredImage> images;
  for (int i = 0; i < 20000; ++i) {
    std::vector<float> z;
    double sum = 0;
    for (int c = 0; c < 4; ++c) {
      z.push_back(static_cast<float>(rng.uniform(-2, 2)));
      sum += std::exp(z.back());
    }
    double at = rng.uniform() * sum;
    int label = 0;
    while (label < 3 && (at -= std::exp(z[label])) > 0) ++label;
    for (float& v : z) v *= 3;
    images.push_back({z, label});
  }
  EXPECT_NEAR(fit_temperature(pointers(images)), 3, 0.1);
  const std::vector<double> ones(images.size(), 1), fitted = cross_fitted_temperatures(images, 1);
  for (double t : fitted) EXPECT_NEAR(t, 3, 0.15);
  EXPECT_LT(calibration_of(images, fitted).ece, 0.02);
  EXPECT_GT(calibration_of(images, ones).ece, 0.2);
}

TEST(Calibration, EachHalfIsCorrectedByTheOther) {
  // Images whose own fit would run to a bound: right ones ask for sharper scores, wrong ones for softer.
  std::vector<ScoredImage> images;
  for (int i = 0; i < 2; ++i) images.push_back({{2, 0}, i});
  const auto t = cross_fitted_temperatures(images, 0);
  EXPECT_EQ(t[0], 100);   // fitted on the wrong one
  EXPECT_EQ(t[1], 0.01);  // fitted on the right one
  EXPECT_EQ(cross_fitted_temperatures({images[0]}, 0), std::vector<double>{1});
}

TEST(Calibration, Errors) {
  EXPECT_THROW(fit_temperature({}), Error);
  EXPECT_THROW(calibration_of({{{1, 2}, 2}}, {1}), Error);
  EXPECT_THROW(calibration_of({{{1, 2}, 0}}, {}), Error);
}

}  // namespace
}  // namespace gm
