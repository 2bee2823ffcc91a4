#include "engine/metrics.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
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

void ConfusionMatrix::add(int truth, int predicted, int64_t images) {
  for (int c : {truth, predicted})
    if (c < 0 || c >= classes_)
      fail("class " + std::to_string(c) + " is not one of " + std::to_string(classes_));
  counts_[static_cast<size_t>(truth) * static_cast<size_t>(classes_) + static_cast<size_t>(predicted)] +=
      images;
}

std::vector<int64_t> ConfusionMatrix::row(int truth) const {
  const auto first = counts_.begin() + static_cast<ptrdiff_t>(truth) * classes_;
  return {first, first + classes_};
}

void ConfusionMatrix::add(std::span<const int32_t> labels, std::span<const float> logits) {
  auto row = logits.begin();
  for (const int32_t truth : labels) {
    add(truth, static_cast<int>(std::max_element(row, row + classes_) - row));
    row += classes_;
  }
}

int64_t ConfusionMatrix::within(int distance) const {
  int64_t sum = 0;
  for (int t = 0; t < classes_; ++t)
    for (int p = std::max(0, t - distance); p < classes_ && p - t <= distance; ++p) sum += at(t, p);
  return sum;
}

int64_t ConfusionMatrix::correct() const { return within(0); }
int64_t ConfusionMatrix::total() const { return within(classes_); }

namespace {

/// What the scores of one class are made of: images of the class, images called it, images that are both.
struct ClassCounts {
  int64_t row = 0, column = 0, hits = 0;
};

void score(const std::vector<ClassCounts>& counts, Metrics& m) {
  int64_t correct = 0;
  m.n = 0;
  for (const ClassCounts& c : counts) m.n += c.row, correct += c.hits;
  m.accuracy = quotient(correct, m.n);
  m.macro = m.weighted = {};
  m.per_class.clear();
  for (const auto& [row, column, hits] : counts) {
    const ClassScores s{quotient(hits, column), quotient(hits, row), quotient(2 * hits, row + column), row};
    m.per_class.push_back(s);
    // Sums first, one division at the end: a perfect score is exactly 1.
    for (auto [sum, weight] : {std::pair{&m.macro, int64_t{1}}, std::pair{&m.weighted, int64_t{s.support}}}) {
      sum->precision += static_cast<double>(weight) * s.precision;
      sum->recall += static_cast<double>(weight) * s.recall;
      sum->f1 += static_cast<double>(weight) * s.f1;
    }
  }
  for (auto [sum, weights] : {std::pair{&m.macro, static_cast<int64_t>(counts.size())},
                              std::pair{&m.weighted, std::max<int64_t>(1, m.n)}}) {
    sum->precision /= static_cast<double>(weights);
    sum->recall /= static_cast<double>(weights);
    sum->f1 /= static_cast<double>(weights);
  }
}

}  // namespace

Metrics metrics_of(const ConfusionMatrix& confusion) {
  const int classes = confusion.classes();
  std::vector<ClassCounts> counts(classes);
  for (int t = 0; t < classes; ++t) {
    counts[t].hits = confusion.at(t, t);
    for (int p = 0; p < classes; ++p) {
      counts[t].row += confusion.at(t, p);
      counts[p].column += confusion.at(t, p);
    }
  }
  Metrics m;
  score(counts, m);
  m.accuracy_within_one = quotient(confusion.within(1), m.n);
  return m;
}

Interval wilson_interval(int64_t correct, int64_t n) {
  if (correct < 0 || correct > n) fail("wilson_interval: argument out of range");
  if (n == 0) return {0, 1};
  constexpr double z = 1.959963984540054;  // normal quantile of 0.975
  const double count = static_cast<double>(n), p = static_cast<double>(correct) / count;
  const double centre = p + z * z / (2 * count),
               width = z * std::sqrt((p * (1 - p) + z * z / (4 * count)) / count);
  const double scale = 1 + z * z / count;
  // No rounding error at the ends.
  return {correct == 0 ? 0 : (centre - width) / scale, correct == n ? 1 : (centre + width) / scale};
}

namespace {

/// Calls f(value, interval) with every score that has an interval.
template <class F>
void each_score(const Metrics& m, MetricIntervals& intervals, F f) {
  auto three = [&](const auto& scores, MetricIntervals::Scores& i) {
    f(scores.precision, i.precision);
    f(scores.recall, i.recall);
    f(scores.f1, i.f1);
  };
  f(m.accuracy, intervals.accuracy);
  three(m.macro, intervals.macro);
  three(m.weighted, intervals.weighted);
  for (size_t c = 0; c < m.per_class.size(); ++c) three(m.per_class[c], intervals.per_class[c]);
}

/// How many of n draws hit, each with probability p.
int64_t binomial(int64_t n, double p, PhiloxStream& rng) {
  struct Bits {
    using result_type = uint32_t;
    static constexpr result_type min() { return 0; }
    static constexpr result_type max() { return ~result_type{0}; }
    result_type operator()() { return rng.next(); }
    PhiloxStream& rng;
  } bits{rng};
  return std::binomial_distribution<int64_t>(n, p)(bits);
}

}  // namespace

MetricIntervals bootstrap_metrics(const ConfusionMatrix& confusion, uint64_t seed, int resamples,
                                  double level) {
  if (resamples < 1 || !(level > 0 && level < 1)) fail("bootstrap: argument out of range");
  const int classes = confusion.classes();
  MetricIntervals result;
  result.per_class.resize(classes);
  if (confusion.total() == 0) return result;
  struct Cell {
    int truth, predicted;
    int64_t images;
  };
  std::vector<Cell> cells;  // that are not empty
  for (int t = 0; t < classes; ++t)
    for (int p = 0; p < classes; ++p)
      if (const int64_t n = confusion.at(t, p)) cells.push_back({t, p, n});

  std::map<Interval*, std::vector<double>> samples;  // of the score whose interval it is
  std::vector<ClassCounts> counts;
  Metrics m;
  for (int r = 0; r < resamples; ++r) {
    PhiloxStream rng(seed, RngUse::sample, static_cast<uint32_t>(r));
    counts.assign(classes, {});
    // A multinomial draw, cell by cell: of the draws left, those that fall on this cell, not on a later one.
    int64_t draws = confusion.total(), images = draws;
    for (const Cell& c : cells) {
      const int64_t drawn = binomial(draws, static_cast<double>(c.images) / static_cast<double>(images), rng);
      draws -= drawn;
      images -= c.images;
      counts[c.truth].row += drawn;
      counts[c.predicted].column += drawn;
      if (c.truth == c.predicted) counts[c.truth].hits += drawn;
    }
    score(counts, m);
    each_score(m, result, [&](double value, Interval& interval) { samples[&interval].push_back(value); });
  }
  for (auto& [interval, values] : samples) {
    std::sort(values.begin(), values.end());
    *interval = {quantile(values, (1 - level) / 2), quantile(values, (1 + level) / 2)};
  }
  return result;
}

}  // namespace gm
