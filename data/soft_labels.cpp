#include "data/soft_labels.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "kernels/common/error.h"

namespace gm {

SoftLabels::SoftLabels(int64_t rows, std::vector<std::string> classes)
    : classes_(std::move(classes)), shares_(static_cast<size_t>(rows) * classes_.size(), 0.f) {}

int SoftLabels::set(int64_t row, std::span<const float> shares, const std::string& where) {
  double sum = 0;
  int whole = -1;
  for (size_t k = 0; k < shares.size(); ++k) {
    const float share = shares[k];
    if (!(share >= 0 && share <= 1))
      fail(fmt::format("{}: {} is {}, not a share from 0 to 1; counts of votes are divided by their sum",
                       where, classes_[k], share));
    if (share == 1 && whole >= 0)
      fail(fmt::format("{}: both {} and {} are 1", where, classes_[static_cast<size_t>(whole)], classes_[k]));
    if (share == 1) whole = static_cast<int>(k);
    sum += share;
  }
  if (sum == 0) return -1;
  if (std::abs(sum - 1) > kSumWithin)
    fail(fmt::format("{}: the shares of the classes sum to {:.4g} instead of 1", where, sum));
  float* to = &shares_[static_cast<size_t>(row) * classes_.size()];
  // What is 1 but for rounding stays as it is: a packed file then holds the numbers of its catalog.
  const double divisor = std::abs(sum - 1) > 1e-5 ? sum : 1;
  for (size_t k = 0; k < shares.size(); ++k) to[k] = static_cast<float>(shares[k] / divisor);
  const int label = static_cast<int>(std::max_element(to, to + shares.size()) - to);
  if (shares[static_cast<size_t>(label)] < 1) shared_ = true;
  return label;
}

void SoftLabels::finish() {
  if (!shared_) shares_ = {};
}

std::span<const float> SoftLabels::row(int64_t i) const {
  if (empty()) return {};
  const std::span<const float> all(&shares_[static_cast<size_t>(i) * classes_.size()], classes_.size());
  return std::ranges::any_of(all, [](float share) { return share > 0; }) ? all : std::span<const float>();
}

}  // namespace gm
