// Labels that are shares of the classes, e.g. of volunteers' votes.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace gm {

/// One row of shares for each image of a set; none at all where every image is of one class.
class SoftLabels {
 public:
  static constexpr double kSumWithin = 0.01;  // of 1: shares are printed with few digits

  SoftLabels() = default;
  SoftLabels(int64_t rows, std::vector<std::string> classes);

  /// Takes the shares of a row, each from 0 to 1, divided by their sum. Returns its label, the first of the
  /// largest, or -1 for a row of zeros, which is unlabelled. Throws gm::Error, which begins with `where`, for
  /// other numbers, a sum that is not 1 and more than one class with all of the votes.
  int set(int64_t row, std::span<const float> shares, const std::string& where);
  /// To be called when all rows are set: forgets them where no image is of more than one class.
  void finish();

  bool empty() const { return shares_.empty(); }
  /// Empty for a row that is unlabelled.
  std::span<const float> row(int64_t i) const;

 private:
  std::vector<std::string> classes_;
  std::vector<float> shares_;  // (rows, classes); zeros: unlabelled
  bool shared_ = false;        // whether any image is of more than one class
};

}  // namespace gm
