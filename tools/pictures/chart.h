// Charts as SVG text: one file that browsers, Inkscape and LaTeX read, also inline in HTML.
#pragma once
#include <optional>
#include <string>
#include <vector>

namespace gm {

/// One set of points (x, y). A value that is not finite, or not positive on a logarithmic axis, is left out
/// and interrupts the line.
struct Series {
  enum class Mark {
    line,         // joined by straight lines
    points,       // one marker each
    line_points,  // both
    steps,        // each value holds until the next x: best so far, or a front
    bars          // from the foot of the axis; x counts categories, bars of several series stand side by side
  };
  std::string name = "";  // in the legend; "": not there
  Mark mark = Mark::line;
  std::vector<double> x = {}, y = {};
  std::vector<double> low = {}, high = {};  // interval of y: a band with lines, whiskers with points and bars
  std::vector<std::string> notes = {};      // per point: shown when the pointer rests on it
  bool dashed = false;
  int colour =
      -1;  // of the palette; -1: the series' place in the chart. kGrey: for what is only compared with
  static constexpr int kGrey = 6;
};

struct Axis {
  std::string label = "";
  bool log = false;
  std::optional<double> low = {}, high = {};  // default: what the data need
  std::vector<std::string> categories = {};   // names at 0, 1, ... instead of numbers
};

struct Chart {
  std::string title = "";
  std::string description = "";  // for screen readers; default: title and axes
  Axis x = {}, y = {};
  std::vector<Series> series = {};
  int width = 680, height = 420;  // px
};

/// A whole <svg> element with its own light background, dark where the reader's system is. Series differ by
/// colour, dash and marker. A chart without a point to draw says "no data". Throws gm::Error when a series'
/// lists have different lengths or an axis' limits are not in order (positive on a logarithmic one).
std::string chart_svg(const Chart& chart);

/// Indices of the points that no other one beats in both (x less or equal, y greater or equal, one of them
/// strictly), by ascending x: the front of accuracy against cost. Of equal points the first.
std::vector<size_t> pareto_front(const std::vector<double>& x, const std::vector<double>& y);

}  // namespace gm
