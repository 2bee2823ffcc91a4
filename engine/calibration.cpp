#include "engine/calibration.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "kernels/common/error.h"
#include "kernels/common/shuffle.h"

namespace gm {

namespace {

/// softmax(beta z) and the logarithm of its denominator after the largest score is taken out.
struct Softmax {
  Softmax(const std::vector<float>& z, double beta) : p(z.size()) {
    top = *std::max_element(z.begin(), z.end());
    double sum = 0;
    for (size_t c = 0; c < z.size(); ++c) sum += p[c] = std::exp(beta * (z[c] - top));
    for (double& v : p) v /= sum;
    log_sum = std::log(sum);
  }
  double nll(const std::vector<float>& z, int label, double beta) const {
    return log_sum - beta * (z[label] - top);
  }
  std::vector<double> p;
  double top, log_sum;
};

void check(const ScoredImage& image) {
  if (image.label < 0 || image.label >= static_cast<int>(image.logits.size()))
    fail("calibration: label " + std::to_string(image.label) + " among " +
         std::to_string(image.logits.size()) + " classes");
}

}  // namespace

Calibration calibration_of(const std::vector<ScoredImage>& images, const std::vector<double>& temperatures,
                           int bins) {
  if (images.size() != temperatures.size() || bins < 1) fail("calibration: arguments do not fit");
  Calibration c;
  for (int b = 0; b < bins; ++b)
    c.bins.push_back({static_cast<double>(b) / bins, static_cast<double>(b + 1) / bins});
  for (size_t i = 0; i < images.size(); ++i) {
    const ScoredImage& image = images[i];
    check(image);
    const double beta = 1 / temperatures[i];
    const Softmax s(image.logits, beta);
    const auto best = std::max_element(s.p.begin(), s.p.end());
    auto bin = std::find_if(c.bins.begin(), c.bins.end() - 1, [&](const auto& b) { return *best <= b.high; });
    ++bin->n;
    bin->correct += best - s.p.begin() == image.label;
    bin->confidence += *best;
    c.nll += s.nll(image.logits, image.label, beta);
    for (size_t k = 0; k < s.p.size(); ++k)
      c.brier += std::pow(s.p[k] - (static_cast<int>(k) == image.label), 2);
  }
  const double n = static_cast<double>(std::max<size_t>(1, images.size()));
  for (ReliabilityBin& b : c.bins) {
    if (b.n == 0) continue;
    b.confidence /= static_cast<double>(b.n);
    b.accuracy = static_cast<double>(b.correct) / static_cast<double>(b.n);
    c.ece += static_cast<double>(b.n) / n * std::abs(b.accuracy - b.confidence);
  }
  c.nll /= n;
  c.brier /= n;
  return c;
}

double fit_temperature(const std::vector<const ScoredImage*>& images) {
  if (images.empty()) fail("calibration: no images to fit a temperature on");
  for (const ScoredImage* image : images) check(*image);
  // Slope and curvature of the likelihood in beta = 1 / T: sums of E_p[z] - z_label and of Var_p[z].
  auto derivatives = [&](double beta) {
    double slope = 0, curvature = 0;
    for (const ScoredImage* image : images) {
      const Softmax s(image->logits, beta);
      double mean = 0, square = 0;
      for (size_t k = 0; k < s.p.size(); ++k) {
        const double z = image->logits[k] - s.top;
        mean += s.p[k] * z;
        square += s.p[k] * z * z;
      }
      slope += mean - (image->logits[image->label] - s.top);
      curvature += square - mean * mean;
    }
    return std::pair(slope, curvature);
  };
  double low = 0.01, high = 100, beta = 1;
  if (derivatives(low).first >= 0) return 1 / low;
  if (derivatives(high).first <= 0) return 1 / high;  // every image right: any sharpening is a gain
  for (int step = 0; step < 200 && high - low > 1e-13 * high; ++step) {
    const auto [slope, curvature] = derivatives(beta);
    (slope > 0 ? high : low) = beta;
    if (slope == 0) break;
    const double newton = beta - slope / curvature;
    const double next = newton > low && newton < high ? newton : std::sqrt(low * high);
    if (std::abs(next - beta) < 1e-14 * beta) break;
    beta = next;
  }
  return 1 / beta;
}

std::vector<double> cross_fitted_temperatures(const std::vector<ScoredImage>& images, uint64_t seed) {
  std::vector<double> temperatures(images.size(), 1);
  if (images.size() < 2) return temperatures;
  std::vector<size_t> order(images.size());
  std::iota(order.begin(), order.end(), 0);
  PhiloxStream rng(seed, RngUse::split, 1);
  shuffle(order, rng);
  const size_t half = order.size() / 2;
  for (bool second : {false, true}) {
    std::vector<const ScoredImage*> others;
    for (size_t k = 0; k < order.size(); ++k)
      if ((k < half) == second) others.push_back(&images[order[k]]);
    const double t = fit_temperature(others);
    for (size_t k = 0; k < order.size(); ++k)
      if ((k < half) != second) temperatures[order[k]] = t;
  }
  return temperatures;
}

}  // namespace gm
