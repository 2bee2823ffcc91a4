#include "engine/metrics.h"

#include <algorithm>
#include <string>
#include <utility>

#include "kernels/common/error.h"
#include "kernels/common/philox.h"

namespace gm {

namespace {

double quotient(int64_t a, int64_t b) { return b ? static_cast<double>(a) / static_cast<double>(b) : 0; }

/// Quantile of sorted values, linear between neighbours (the default of NumPy and R).
double quantile(const std::vector<double>& sorted, double q) {
  const double at = q * static_cast<double>(sorted.size() - 1);
  const auto i = static_cast<size_t>(at);
  const size_t next = std::min(i + 1, sorted.size() - 1);
  return sorted[i] + (at - static_cast<double>(i)) * (sorted[next] - sorted[i]);
}

}  // namespace

ConfusionMatrix::ConfusionMatrix(int classes) : classes_(classes) {
  if (classes < 1) fail("a confusion matrix needs at least one class");
  counts_.assign(static_cast<size_t>(classes) * static_cast<size_t>(classes), 0);
}

void ConfusionMatrix::add(int truth, int predicted) {
  for (int c : {truth, predicted})
    if (c < 0 || c >= classes_)
      fail("class " + std::to_string(c) + " is not one of " + std::to_string(classes_));
  ++counts_[static_cast<size_t>(truth) * static_cast<size_t>(classes_) + static_cast<size_t>(predicted)];
}

int64_t ConfusionMatrix::within(int distance) const {
  int64_t sum = 0;
  for (int t = 0; t < classes_; ++t)
    for (int p = std::max(0, t - distance); p < classes_ && p - t <= distance; ++p) sum += at(t, p);
  return sum;
}

int64_t ConfusionMatrix::correct() const { return within(0); }
int64_t ConfusionMatrix::total() const { return within(classes_); }

Metrics metrics_of(const ConfusionMatrix& confusion) {
  const int classes = confusion.classes();
  Metrics m;
  m.n = confusion.total();
  m.accuracy = quotient(confusion.correct(), m.n);
  m.accuracy_within_one = quotient(confusion.within(1), m.n);
  for (int c = 0; c < classes; ++c) {
    const int64_t hits = confusion.at(c, c);
    int64_t row = 0, column = 0;
    for (int k = 0; k < classes; ++k) {
      row += confusion.at(c, k);
      column += confusion.at(k, c);
    }
    const ClassScores s{quotient(hits, column), quotient(hits, row), quotient(2 * hits, row + column), row};
    m.per_class.push_back(s);
    // Sums first, one division at the end: a perfect score is exactly 1.
    for (auto [sum, weight] : {std::pair{&m.macro, int64_t{1}}, std::pair{&m.weighted, row}}) {
      sum->precision += static_cast<double>(weight) * s.precision;
      sum->recall += static_cast<double>(weight) * s.recall;
      sum->f1 += static_cast<double>(weight) * s.f1;
    }
  }
  for (auto [sum, weights] :
       {std::pair{&m.macro, int64_t{classes}}, std::pair{&m.weighted, std::max<int64_t>(1, m.n)}}) {
    sum->precision /= static_cast<double>(weights);
    sum->recall /= static_cast<double>(weights);
    sum->f1 /= static_cast<double>(weights);
  }
  return m;
}

Interval bootstrap_interval(int64_t correct, int64_t n, uint64_t seed, int resamples, double level) {
  if (correct < 0 || correct > n || n >= int64_t{1} << 32 || resamples < 1 || !(level > 0 && level < 1))
    fail("bootstrap: argument out of range");
  if (n == 0) return {};
  std::vector<double> accuracies;
  for (int r = 0; r < resamples; ++r) {
    // Which images are right does not matter, only how many: the first `correct` stand for them.
    PhiloxStream rng(seed, RngUse::sample, static_cast<uint32_t>(r));
    int64_t right = 0;
    for (int64_t i = 0; i < n; ++i) right += rng.below(static_cast<uint32_t>(n)) < correct;
    accuracies.push_back(quotient(right, n));
  }
  std::sort(accuracies.begin(), accuracies.end());
  return {quantile(accuracies, (1 - level) / 2), quantile(accuracies, (1 + level) / 2)};
}

}  // namespace gm
