#include "tools/pictures/chart_axis.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "kernels/common/ceil_div.h"
#include "kernels/common/error.h"

namespace gm {

namespace {

/// "0.25", "20 k", "1.5 M"; `step` tells how many digits neighbours need to differ.
std::string tick_text(double value, double step) {
  double unit = 1;
  const char* name = "";
  const double size = std::max(std::abs(value), step);
  for (auto [u, n] : {std::pair{1e9, " G"}, {1e6, " M"}, {1e3, " k"}})
    if (size >= u && size >= 1e4) {
      unit = u, name = n;
      break;
    }
  if (value == 0) return "0";
  const double magnitude = std::abs(value);
  if (magnitude < 1e-3 || magnitude >= 1e13) return fmt::format("{:.3g}", value);
  const int digits = std::clamp(static_cast<int>(std::ceil(-std::log10(step / unit) - 1e-9)), 0, 6);
  return fmt::format("{:.{}f}{}", value / unit, digits, name);
}

}  // namespace

bool AxisScale::drawable(double value) const { return std::isfinite(value) && (!axis_.log || value > 0); }

void AxisScale::include(double value) {
  if (!drawable(value)) return;
  low_ = any_ ? std::min(low_, value) : value;
  high_ = any_ ? std::max(high_, value) : value;
  any_ = true;
}

void AxisScale::settle(const std::string& chart, double margin) {
  settled_ = true;
  if (!axis_.categories.empty()) {
    low_ = -0.5;
    high_ = static_cast<double>(axis_.categories.size()) - 0.5;
    return;
  }
  if (!any_) low_ = axis_.log ? 1 : 0, high_ = axis_.log ? 10 : 1;
  if (axis_.log) {
    const double by = high_ > low_ ? std::pow(high_ / low_, margin) : 2;
    low_ /= by;
    high_ *= by;
  } else {
    // What starts at zero is drawn from zero: no margin below it.
    const double by = high_ > low_ ? margin * (high_ - low_) : std::max(0.5 * std::abs(high_), 1e-9);
    if (low_ != 0) low_ -= by;
    if (high_ != 0 || low_ == 0) high_ += by;
  }
  if (axis_.low) low_ = *axis_.low;
  if (axis_.high) high_ = *axis_.high;
  if (!(low_ < high_) || !drawable(low_) || !std::isfinite(high_))
    fail(fmt::format("chart '{}': axis from {} to {}{}", chart, low_, high_,
                     axis_.log ? ", logarithmic" : ""));
}

double AxisScale::share(double value) const {
  return axis_.log ? std::log(value / low_) / std::log(high_ / low_) : (value - low_) / (high_ - low_);
}

double AxisScale::inside(double value) const {
  return std::isnan(value) ? low_ : std::clamp(value, low_, high_);
}

std::vector<AxisScale::Tick> AxisScale::ticks(int many) const {
  std::vector<Tick> list;
  if (!axis_.categories.empty()) {
    const size_t n = axis_.categories.size(), every = ceil_div(n, 40);
    for (size_t i = 0; i < n; i += every) list.push_back({static_cast<double>(i), axis_.categories[i]});
    return list;
  }
  if (axis_.log) {
    const double decades = std::log10(high_ / low_);
    const int every = std::max(1, static_cast<int>(std::ceil(decades / many)));
    for (int e = static_cast<int>(std::floor(std::log10(low_))); e <= std::ceil(std::log10(high_)); ++e)
      for (double digit : {1., 2., 5.}) {
        if (digit > 1 && decades > 0.4 * many) continue;
        const double v = digit * std::pow(10.0, e);
        if (digit == 1 && ((e % every) + every) % every != 0) continue;
        if (v >= low_ * (1 - 1e-9) && v <= high_ * (1 + 1e-9)) list.push_back({v, tick_text(v, v)});
      }
    if (list.size() >= 2) return list;  // else the range is too narrow: round values as on a linear axis
    list.clear();
  }
  const double rough = (high_ - low_) / many, unit = std::pow(10.0, std::floor(std::log10(rough)));
  const double step = unit * (rough > 7 * unit ? 10 : rough > 3.2 * unit ? 5 : rough > 1.4 * unit ? 2 : 1);
  for (double k = std::ceil(low_ / step - 1e-9); k * step <= high_ + 1e-9 * step; ++k)
    list.push_back({k * step, tick_text(k * step, step)});
  return list;
}

}  // namespace gm
