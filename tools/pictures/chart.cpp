#include "tools/pictures/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "kernels/common/error.h"
#include "tools/pictures/chart_axis.h"
#include "tools/pictures/markup.h"

namespace gm {

namespace {

using Mark = Series::Mark;

// Each has a contrast of at least 3 with the light and with the dark background.
constexpr std::array kPalette{"#2f7fd1", "#d55e00", "#00936c", "#b154ad", "#b97900", "#d3506f", "#7d8590"};
constexpr std::array kDashes{"", "7 4", "2 3", "10 3 2 3"};
constexpr int kMargin = 14, kLine = 20, kTick = 5;
constexpr double kLetter = 6.9, kTickLetter = 6.2;  // mean widths at 13 and 12 px

constexpr const char* kStyle =
    "<style>.gmc-back{fill:#fff}.gmc-ink{fill:#24292f}.gmc-soft{fill:#57606a}.gmc-grid{stroke:#e3e7eb}"
    ".gmc-axis{stroke:#8c959f}.gmc-back-line{stroke:#fff}.gmc-ink-line{stroke:#24292f}"
    "@media (prefers-color-scheme:dark){.gmc-back{fill:#14181d}.gmc-ink{fill:#e6edf3}.gmc-soft{fill:#a3adb8}"
    ".gmc-grid{stroke:#2a3138}.gmc-axis{stroke:#6e7681}.gmc-back-line{stroke:#14181d}"
    ".gmc-ink-line{stroke:#e6edf3}}</style>\n";

std::string number(double v) { return fmt::format("{:.6g}", std::round(v * 100) / 100); }

/// Letters of a UTF-8 text.
size_t letters(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

class Drawing {
 public:
  explicit Drawing(const Chart& chart) : chart_(chart), x_(chart.x), y_(chart.y) {
    check();
    spread();
    place();
  }

  std::string svg() {
    const std::string what = !chart_.description.empty() ? chart_.description
                             : chart_.y.label.empty()
                                 ? chart_.title
                                 : chart_.title + ": " + chart_.y.label + " against " + chart_.x.label;
    out_ = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" "
        "role=\"img\" aria-label=\"{2}\" font-family=\"system-ui, 'Segoe UI', 'DejaVu Sans', Arial, "
        "sans-serif\" font-size=\"13\">\n",
        chart_.width, chart_.height, markup_text(what));
    out_ += kStyle;
    out_ += fmt::format("<rect class=\"gmc-back\" width=\"{}\" height=\"{}\" fill=\"#fff\"/>\n", chart_.width,
                        chart_.height);
    text(kMargin, kMargin + 13, "start", "ink", chart_.title, " font-size=\"15\" font-weight=\"600\"");
    legend();
    axes();
    if (!any_) text((left_ + right_) / 2, (top_ + bottom_) / 2, "middle", "soft", "no data");
    // Bands lie under all lines, so that no interval hides another series.
    for (size_t s = 0; s < chart_.series.size(); ++s) band(s);
    for (size_t s = 0; s < chart_.series.size(); ++s) series(s);
    return out_ + "</svg>\n";
  }

 private:
  void check() const {
    for (const Series& s : chart_.series) {
      const size_t n = s.x.size();
      if (s.y.size() != n || s.low.size() != s.high.size() || (!s.low.empty() && s.low.size() != n) ||
          (!s.notes.empty() && s.notes.size() != n))
        fail("chart '" + chart_.title + "': the lists of series '" + s.name + "' differ in length");
    }
  }

  bool drawable(const Series& s, size_t i) const {
    return x_.drawable(s.x[i]) && x_.within(s.x[i]) && y_.drawable(s.y[i]);
  }

  void spread() {
    const size_t bars = std::count_if(chart_.series.begin(), chart_.series.end(),
                                      [](const Series& s) { return s.mark == Mark::bars; });
    bars_ = static_cast<int>(bars);
    for (const Series& s : chart_.series)
      for (size_t i = 0; i < s.x.size(); ++i) {
        if (!drawable(s, i)) continue;
        any_ = true;
        x_.include(s.x[i]);
        y_.include(s.y[i]);
        if (s.mark == Mark::bars && !chart_.y.log) y_.include(0);
        if (!s.low.empty()) y_.include(s.low[i]), y_.include(s.high[i]);
      }
    const bool touching = bars > 0;
    x_.settle(chart_.title, touching ? 0.0 : 0.02);
    y_.settle(chart_.title, 0.04);
  }

  void place() {
    size_t widest = 0;
    for (const auto& t : y_.ticks(6)) widest = std::max(widest, letters(t.text));
    left_ = kMargin + kTick + 4 + kTickLetter * static_cast<double>(widest) +
            (chart_.y.label.empty() ? 0 : kLine);
    right_ = chart_.width - kMargin - 6;
    top_ = kMargin + (chart_.title.empty() ? 0 : kLine + 4);
    double at = left_;
    bool any = false;
    for (size_t s = 0; s < chart_.series.size(); ++s) {
      const std::string& name = chart_.series[s].name;
      if (name.empty()) continue;
      const double width = 34 + kLetter * static_cast<double>(letters(name)) + 14;
      if (any && at + width > right_) at = left_, top_ += kLine;
      places_.push_back({s, at, top_});
      at += width;
      any = true;
    }
    if (any) top_ += kLine + 6;
    bottom_ = chart_.height - kMargin - kTick - 16 - (chart_.x.label.empty() ? 0 : kLine);
    if (!chart_.x.categories.empty()) {
      size_t longest = 0;
      for (const auto& c : chart_.x.categories) longest = std::max(longest, letters(c));
      const double room = (right_ - left_) / static_cast<double>(chart_.x.categories.size());
      slanted_ = static_cast<double>(longest) * kTickLetter > room - 6;
      if (slanted_) bottom_ -= 0.5 * kTickLetter * static_cast<double>(longest);
    }
    bottom_ = std::max(bottom_, top_ + 40);
  }

  double px(double v) const { return left_ + x_.share(v) * (right_ - left_); }
  double py(double v) const { return bottom_ - y_.share(v) * (bottom_ - top_); }
  const char* colour(size_t s) const {
    const int c = chart_.series[s].colour;
    return kPalette[(c < 0 ? s % (kPalette.size() - 1) : static_cast<size_t>(c) % kPalette.size())];
  }
  std::string stroke(size_t s) const {
    const bool many = s >= kPalette.size() - 1;  // a second round of colours: dashes tell them apart
    const char* dash =
        chart_.series[s].dashed ? kDashes[1] : kDashes[many ? s / (kPalette.size() - 1) % 4 : 0];
    return fmt::format(" stroke=\"{}\" stroke-width=\"2\"{}", colour(s),
                       *dash ? fmt::format(" stroke-dasharray=\"{}\"", dash) : "");
  }

  void text(double x, double y, const char* anchor, const char* kind, const std::string& what,
            const std::string& more = "") {
    if (what.empty()) return;
    out_ += fmt::format(
        "<text class=\"gmc-{}\" fill=\"{}\" x=\"{}\" y=\"{}\" text-anchor=\"{}\"{}>{}</text>\n", kind,
        *kind == 'i' ? "#24292f" : "#57606a", number(x), number(y), anchor, more, markup_text(what));
  }
  void line(double x0, double y0, double x1, double y1, const char* kind, const char* colour) {
    out_ += fmt::format("<line class=\"gmc-{}\" stroke=\"{}\" x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"/>\n",
                        kind, colour, number(x0), number(y0), number(x1), number(y1));
  }

  void marker(size_t s, double x, double y, const std::string& note) {
    const std::string tip = note.empty() ? "" : "<title>" + markup_text(note) + "</title>";
    const std::string look = fmt::format("class=\"gmc-back-line\" fill=\"{}\" stroke=\"#fff\"", colour(s));
    auto polygon = [&](std::initializer_list<std::pair<double, double>> points) {
      std::string list;
      for (auto [dx, dy] : points) list += number(x + dx) + "," + number(y + dy) + " ";
      list.pop_back();
      out_ += fmt::format("<polygon {} points=\"{}\">{}</polygon>\n", look, list, tip);
    };
    switch (s % 4) {
      case 0:
        out_ += fmt::format("<circle {} cx=\"{}\" cy=\"{}\" r=\"4.5\">{}</circle>\n", look, number(x),
                            number(y), tip);
        break;
      case 1:
        polygon({{-4, -4}, {4, -4}, {4, 4}, {-4, 4}});
        break;
      case 2:
        polygon({{0, -5.2}, {5, 3.8}, {-5, 3.8}});
        break;
      default:
        polygon({{0, -5.6}, {5.6, 0}, {0, 5.6}, {-5.6, 0}});
    }
  }

  void legend() {
    for (const auto& p : places_) {
      const Series& s = chart_.series[p.series];
      const double y = p.y + 9;
      if (s.mark == Mark::bars)
        out_ += fmt::format("<rect fill=\"{}\" x=\"{}\" y=\"{}\" width=\"24\" height=\"12\"/>\n",
                            colour(p.series), number(p.x), number(y - 6));
      else if (s.mark != Mark::points)
        out_ += fmt::format("<line{} x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"/>\n", stroke(p.series),
                            number(p.x), number(y), number(p.x + 24), number(y));
      if (s.mark == Mark::points || s.mark == Mark::line_points) marker(p.series, p.x + 12, y, "");
      text(p.x + 30, y + 4.5, "start", "ink", s.name);
    }
  }

  void axes() {
    const int many_x = std::max(2, static_cast<int>((right_ - left_) / 90)),
              many_y = std::max(2, static_cast<int>((bottom_ - top_) / 45));
    const std::string small = " font-size=\"12\"";
    for (const auto& t : y_.ticks(many_y)) {
      line(left_, py(t.value), right_, py(t.value), "grid", "#e3e7eb");
      text(left_ - kTick - 3, py(t.value) + 4, "end", "soft", t.text, small);
    }
    for (const auto& t : x_.ticks(many_x)) {
      const double x = px(t.value);
      if (chart_.x.categories.empty()) line(x, top_, x, bottom_, "grid", "#e3e7eb");
      if (slanted_)
        text(
            x, bottom_ + kTick + 10, "end", "soft", t.text,
            small + fmt::format(" transform=\"rotate(-30 {} {})\"", number(x), number(bottom_ + kTick + 10)));
      else
        text(x, bottom_ + kTick + 12, "middle", "soft", t.text, small);
    }
    line(left_, bottom_, right_, bottom_, "axis", "#8c959f");
    line(left_, top_, left_, bottom_, "axis", "#8c959f");
    text((left_ + right_) / 2, chart_.height - kMargin, "middle", "ink", chart_.x.label);
    const double x = kMargin + 6, y = (top_ + bottom_) / 2;
    text(x, y, "middle", "ink", chart_.y.label,
         fmt::format(" transform=\"rotate(-90 {} {})\"", number(x), number(y)));
  }

  /// The stretches of consecutive points that can be drawn.
  template <class Draw>
  void stretches(const Series& s, Draw&& draw) const {
    for (size_t i = 0; i < s.x.size();) {
      size_t end = i;
      while (end < s.x.size() && drawable(s, end)) ++end;
      if (end > i) draw(i, end);
      i = std::max(end, i + 1);
    }
  }

  void band(size_t index) {
    const Series& s = chart_.series[index];
    if (s.low.empty() || s.mark == Mark::points || s.mark == Mark::bars) return;
    stretches(s, [&](size_t begin, size_t end) {
      std::string points;
      for (size_t i = begin; i < end; ++i)
        points += number(px(s.x[i])) + "," + number(py(y_.inside(s.high[i]))) + " ";
      for (size_t i = end; i-- > begin;)
        points += number(px(s.x[i])) + "," + number(py(y_.inside(s.low[i]))) + " ";
      points.pop_back();
      out_ +=
          fmt::format("<polygon fill=\"{}\" fill-opacity=\"0.18\" points=\"{}\"/>\n", colour(index), points);
    });
  }

  void whisker(size_t index, double x, size_t i) {
    const Series& s = chart_.series[index];
    if (s.low.empty()) return;
    const double low = py(y_.inside(s.low[i])), high = py(y_.inside(s.high[i]));
    out_ += fmt::format(
        "<path class=\"gmc-ink-line\" stroke=\"#24292f\" stroke-width=\"1.5\" fill=\"none\" "
        "d=\"M{0} {1}V{2}M{3} {1}h8M{3} {2}h8\"/>\n",
        number(x), number(low), number(high), number(x - 4));
  }

  void series(size_t index) {
    const Series& s = chart_.series[index];
    auto note = [&](size_t i) { return s.notes.empty() ? std::string() : s.notes[i]; };
    if (s.mark == Mark::bars) {
      const int before = static_cast<int>(
          std::count_if(chart_.series.begin(), chart_.series.begin() + static_cast<long>(index),
                        [](const Series& o) { return o.mark == Mark::bars; }));
      for (size_t i = 0; i < s.x.size(); ++i) {
        if (!drawable(s, i)) continue;
        const double foot = py(y_.inside(0)), top = py(y_.inside(s.y[i])), wide = 0.76 / bars_;
        const double x0 = px(s.x[i] - 0.38 + before * wide), x1 = px(s.x[i] - 0.38 + (before + 1) * wide);
        out_ += fmt::format(
            "<rect fill=\"{}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"><title>{}</title></rect>\n",
            colour(index), number(x0), number(std::min(top, foot)), number(std::max(1.0, x1 - x0 - 1)),
            number(std::abs(foot - top)),
            markup_text(note(i).empty() ? fmt::format("{:.4g}", s.y[i]) : note(i)));
        whisker(index, (x0 + x1 - 1) / 2, i);
      }
      return;
    }
    if (s.mark != Mark::points)
      stretches(s, [&](size_t begin, size_t end) {
        std::string path = "M" + number(px(s.x[begin])) + " " + number(py(y_.inside(s.y[begin])));
        for (size_t i = begin + 1; i < end; ++i) {
          if (s.mark == Mark::steps)
            path += "H" + number(px(s.x[i])) + "V" + number(py(y_.inside(s.y[i])));
          else
            path += "L" + number(px(s.x[i])) + " " + number(py(y_.inside(s.y[i])));
        }
        out_ +=
            fmt::format("<path fill=\"none\" stroke-linejoin=\"round\"{} d=\"{}\"/>\n", stroke(index), path);
      });
    if (s.mark == Mark::points || s.mark == Mark::line_points)
      for (size_t i = 0; i < s.x.size(); ++i) {
        if (!drawable(s, i)) continue;
        if (s.mark == Mark::points) whisker(index, px(s.x[i]), i);
        marker(index, px(s.x[i]), py(y_.inside(s.y[i])), note(i));
      }
  }

  struct Place {
    size_t series;
    double x, y;
  };
  const Chart& chart_;
  AxisScale x_, y_;
  bool any_ = false, slanted_ = false;
  int bars_ = 0;
  double left_ = 0, right_ = 0, top_ = 0, bottom_ = 0;
  std::vector<Place> places_;
  std::string out_;
};

}  // namespace

std::string chart_svg(const Chart& chart) { return Drawing(chart).svg(); }

std::vector<size_t> pareto_front(const std::vector<double>& x, const std::vector<double>& y) {
  if (x.size() != y.size()) fail("pareto front: lists of different lengths");
  std::vector<size_t> order(x.size()), front;
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return x[a] != x[b] ? x[a] < x[b] : y[a] > y[b]; });
  for (size_t i : order)
    if (front.empty() || y[i] > y[front.back()]) front.push_back(i);
  return front;
}

}  // namespace gm
