// Scores of a classifier from its confusion matrix, in double precision, with the standard definitions.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace gm {

/// Counts by (true class, predicted class).
class ConfusionMatrix {
 public:
  explicit ConfusionMatrix(int classes);
  /// Counts so many images. Throws gm::Error on a class out of range.
  void add(int truth, int predicted, int64_t images = 1);
  /// Images with logits (N, classes), or more rows than labels; predicted is the largest, of equals the
  /// first.
  void add(std::span<const int32_t> labels, std::span<const float> logits);
  int classes() const { return classes_; }
  int64_t at(int truth, int predicted) const {
    return counts_[static_cast<size_t>(truth) * static_cast<size_t>(classes_) +
                   static_cast<size_t>(predicted)];
  }
  /// Counts of one true class, by predicted class.
  std::vector<int64_t> row(int truth) const;
  int64_t total() const;
  /// Images on the diagonal.
  int64_t correct() const;
  /// Images whose predicted class index is at most `distance` away from the true one.
  int64_t within(int distance) const;

 private:
  int classes_;
  std::vector<int64_t> counts_;  // row-major, row = true class
};

/// One class against the rest: TP = at(c, c), FN = the rest of row c, FP = the rest of column c.
struct ClassScores {
  double precision = 0;  // TP / (TP + FP)
  double recall = 0;     // TP / (TP + FN)
  double f1 = 0;         // 2 precision recall / (precision + recall) = 2 TP / (2 TP + FP + FN)
  int64_t support = 0;   // TP + FN: images of this class
};

/// Averages over classes: macro is the plain mean over all classes, present or not; weighted has the weights
/// W_c = support_c / n.
struct Averages {
  double precision = 0, recall = 0, f1 = 0;
};

/// S2 Eq. 7 (accuracy), 8 to 10 (precision, recall, F1 of a class) and 11, 12 (weighted averages). S2 prints
/// precision and recall swapped (its Eq. 8 divides by TP + FN); here they have their usual meaning. A
/// quotient with a zero denominator is 0: the precision of a class that was never predicted, the recall of
/// one that does not occur. Weighted recall equals accuracy.
struct Metrics {
  int64_t n = 0;
  double accuracy = 0;             // correct / n
  double accuracy_within_one = 0;  // |predicted - true| <= 1: for classes in an order, such as Hubble types
  Averages macro, weighted;
  std::vector<ClassScores> per_class;
};
Metrics metrics_of(const ConfusionMatrix& confusion);

struct Interval {
  double low = 0, high = 0;
};

/// 95 % interval of an accuracy of `correct` out of `n` (Wilson 1927): needs no draws and holds for a handful
/// of images and for accuracies near 1 as well. (0, 1) for n = 0.
Interval wilson_interval(int64_t correct, int64_t n);

/// Intervals of everything in Metrics, by the percentile bootstrap: the images are drawn anew with
/// replacement `resamples` times, and (1 - level) / 2 of the values lie outside on either side. Philox draws:
/// the same arguments give the same intervals everywhere. All (0, 0) without images.
struct MetricIntervals {
  struct Scores {
    Interval precision, recall, f1;
  };
  Interval accuracy;
  Scores macro, weighted;
  std::vector<Scores> per_class;
};
MetricIntervals bootstrap_metrics(const ConfusionMatrix& confusion, uint64_t seed, int resamples = 2000,
                                  double level = 0.95);

}  // namespace gm
