// One axis of a chart: its range, its ticks, and where on it a value lies.
#pragma once
#include <string>
#include <vector>

#include "tools/pictures/chart.h"

namespace gm {

class AxisScale {
 public:
  explicit AxisScale(const Axis& axis) : axis_(axis) {}

  bool drawable(double value) const;
  /// Widens the range; values that cannot be drawn are ignored.
  void include(double value);
  /// Fixes the range: the axis' own limits, else what was included and a share of it as margin on both sides.
  /// Throws gm::Error naming the chart when limits are not in order.
  void settle(const std::string& chart, double margin);
  /// False for values beyond the limits, once they are settled.
  bool within(double value) const { return !settled_ || (value >= low_ && value <= high_); }
  /// 0 at the low end, 1 at the high end.
  double share(double value) const;
  /// The nearest value within the range.
  double inside(double value) const;

  struct Tick {
    double value;
    std::string text;
  };
  /// About `many`, at round values; categories all, or evenly thinned out where they are too many.
  std::vector<Tick> ticks(int many) const;

 private:
  double low_ = 0, high_ = 1;
  bool any_ = false, settled_ = false;
  Axis axis_;
};

}  // namespace gm
