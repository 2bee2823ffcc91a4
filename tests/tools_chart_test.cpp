// The SVG chart writer: well-formed, true to the numbers, readable on both backgrounds.
#include "tools/pictures/chart.h"

#include <cmath>
#include <cstdlib>
#include <limits>
#include <regex>

#include "kernels/common/error.h"
#include "tests/data_test_util.h"
#include "tools/pictures/markup.h"

namespace gm {
namespace {

using Mark = Series::Mark;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

/// All values of the first group of `pattern`.
std::vector<std::string> all(const std::string& text, const std::string& pattern) {
  const std::regex expression(pattern);
  std::vector<std::string> list;
  for (std::sregex_iterator it(text.begin(), text.end(), expression), end; it != end; ++it)
    list.push_back((*it)[1]);
  return list;
}

/// Python's expat judges the file.
void expect_well_formed(const std::string& svg) {
  test::TempDir dir;
  test::write_text(dir / "chart.svg", svg);
  const std::string command =
      "python3 -c 'import sys,xml.dom.minidom as m; m.parse(sys.argv[1])' '" + (dir / "chart.svg") + "'";
  EXPECT_EQ(std::system(command.c_str()), 0);
}

Chart example() {
  return {.title = "Loss & <accuracy>",
          .x = {.label = "epoch"},
          .y = {.label = "loss \"x\""},
          .series = {{.name = "train", .x = {1, 2, 3}, .y = {3, 2, 1.5}, .low = {2, 1, 1}, .high = {4, 3, 2}},
                     {.name = "validation", .mark = Mark::line_points, .x = {1, 2, 3}, .y = {3, kNan, 1.7}},
                     {.name = "counts",
                      .mark = Mark::bars,
                      .x = {1, 2},
                      .y = {1, 2},
                      .low = {.5, 1},
                      .high = {1, 3},
                      .notes = {"a<b", "\x01\xFF"}}}};
}

TEST(Chart, IsWellFormedAndSaysWhatItShows) {
  const std::string svg = chart_svg(example());
  expect_well_formed(svg);
  EXPECT_NE(svg.find(">Loss &amp; &lt;accuracy&gt;</text>"), std::string::npos);
  EXPECT_NE(svg.find("aria-label=\"Loss &amp; &lt;accuracy&gt;: loss &quot;x&quot; against epoch\""),
            std::string::npos);
  EXPECT_NE(svg.find("<title>a&lt;b</title>"), std::string::npos);
  // Two points of three (one is NaN) and the sample in the legend; bars and theirs.
  EXPECT_EQ(all(svg, "(<polygon class=\"gmc-back-line\")").size(), 3u);
  EXPECT_EQ(all(svg, "(<rect fill)").size(), 3u);
  expect_well_formed(chart_svg({.title = "empty"}));
  EXPECT_NE(chart_svg({.title = "empty"}).find(">no data<"), std::string::npos);
  expect_well_formed(chart_svg({.title = "", .series = {{.x = {1}, .y = {0}}}}));
}

TEST(Chart, PutsPointsWhereTheyBelong) {
  const auto svg =
      chart_svg({.x = {.log = true, .low = 1, .high = 1000},
                 .y = {.low = 0, .high = 1},
                 .series = {{.mark = Mark::points, .x = {1, 10, 100, -5, 0}, .y = {0, .25, 1, 1, 1}}}});
  const auto x = all(svg, "cx=\"([0-9.]+)\""), y = all(svg, "cy=\"([0-9.]+)\"");
  ASSERT_EQ(x.size(), 3u);  // a logarithm takes no -5 and no 0
  EXPECT_NEAR(std::stod(x[1]) - std::stod(x[0]), std::stod(x[2]) - std::stod(x[1]), 0.011);
  EXPECT_NEAR(std::stod(y[0]) - std::stod(y[1]), 0.25 * (std::stod(y[0]) - std::stod(y[2])), 0.011);
  EXPECT_GT(std::stod(y[0]), std::stod(y[2]));
  const auto labels = all(svg, "text-anchor=\"middle\" font-size=\"12\">([^<]*)<");
  EXPECT_EQ(labels.front(), "1");
  EXPECT_EQ(labels.back(), "1000");
}

TEST(Chart, TicksAreRound) {
  auto ticks = [](double low, double high, bool log) {
    return all(chart_svg({.x = {.log = log, .low = low, .high = high}, .series = {{.x = {low}, .y = {1}}}}),
               "text-anchor=\"middle\" font-size=\"12\">([^<]*)<");
  };
  using List = std::vector<std::string>;
  EXPECT_EQ(ticks(0, 1, false), (List{"0", "0.2", "0.4", "0.6", "0.8", "1.0"}));
  EXPECT_EQ(ticks(0, 40e6, false),
            (List{"0", "5 M", "10 M", "15 M", "20 M", "25 M", "30 M", "35 M", "40 M"}));
  EXPECT_EQ(ticks(-1, 1, false), (List{"-1.0", "-0.5", "0", "0.5", "1.0"}));
  EXPECT_EQ(ticks(1e6, 1e8, true), (List{"1 M", "2 M", "5 M", "10 M", "20 M", "50 M", "100 M"}));
  EXPECT_EQ(ticks(95, 105, true), (List{"96", "98", "100", "102", "104"}));
}

double luminance(const std::string& colour) {
  const std::string hex =
      colour.size() == 4 ? std::string{'#', colour[1], colour[1], colour[2], colour[2], colour[3], colour[3]}
                         : colour;
  double sum = 0;
  for (auto [at, weight] : {std::pair{1, 0.2126}, {3, 0.7152}, {5, 0.0722}}) {
    const double v = std::stoi(hex.substr(at, 2), nullptr, 16) / 255.0;
    sum += weight * (v <= 0.03928 ? v / 12.92 : std::pow((v + 0.055) / 1.055, 2.4));
  }
  return sum;
}
double contrast(const std::string& a, const std::string& b) {
  const double x = luminance(a), y = luminance(b);
  return (std::max(x, y) + 0.05) / (std::min(x, y) + 0.05);
}

// WCAG 2: 3 for graphics, 4.5 for text, on both backgrounds.
TEST(Chart, ContrastIsEnough) {
  Chart chart;
  for (int s = 0; s < 7; ++s)
    chart.series.push_back({.name = "s", .mark = Mark::bars, .x = {0}, .y = {1}, .colour = s});
  const std::string svg = chart_svg(chart);
  const auto backgrounds = all(svg, "gmc-back\\{fill:(#[0-9a-f]+)"),
             ink = all(svg, "gmc-ink\\{fill:(#[0-9a-f]+)"), soft = all(svg, "gmc-soft\\{fill:(#[0-9a-f]+)");
  ASSERT_EQ(backgrounds.size(), 2u);
  const auto colours = all(svg, "<rect fill=\"(#[0-9a-f]+)\"");
  ASSERT_EQ(colours.size(), 14u);
  for (int k = 0; k < 2; ++k) {
    for (const auto& c : colours) EXPECT_GE(contrast(c, backgrounds[k]), 3) << c << " on " << backgrounds[k];
    EXPECT_GE(contrast(ink[k], backgrounds[k]), 4.5);
    EXPECT_GE(contrast(soft[k], backgrounds[k]), 4.5);
  }
}

TEST(Chart, RefusesWhatCannotBeDrawn) {
  EXPECT_THROW(chart_svg({.series = {{.x = {1, 2}, .y = {1}}}}), Error);
  EXPECT_THROW(chart_svg({.series = {{.x = {1}, .y = {1}, .low = {0}}}}), Error);
  EXPECT_THROW(chart_svg({.y = {.low = 2, .high = 1}}), Error);
  EXPECT_THROW(chart_svg({.y = {.log = true, .low = 0}}), Error);
}

TEST(Chart, FrontHoldsWhatNoneBeats) {
  //                                    0  1   2  3  4  5
  EXPECT_EQ(pareto_front({3, 1, 2, 2, 5, 1}, {.9, .5, .8, .7, .9, .5}), (std::vector<size_t>{1, 2, 0}));
  EXPECT_TRUE(pareto_front({}, {}).empty());
}

TEST(Markup, EscapesAndRepairs) {
  EXPECT_EQ(markup_text("a & b < c > \"d\" 'e'\n"), "a &amp; b &lt; c &gt; &quot;d&quot; &#39;e&#39;\n");
  EXPECT_EQ(markup_text("Sérsic α 🌌"), "Sérsic α 🌌");
  const std::string bad = "\xEF\xBF\xBD";
  EXPECT_EQ(markup_text("\x01x\xC3"), bad + "x" + bad);
  EXPECT_EQ(markup_text("\xC0\xAF"), bad + bad);            // overlong
  EXPECT_EQ(markup_text("\xED\xA0\x80"), bad + bad + bad);  // a surrogate
}

/// The numbers of all attributes `name` of elements that begin with `element`.
std::vector<double> numbers(const std::string& svg, const std::string& element, const std::string& name) {
  std::vector<double> list;
  for (const std::string& text : all(svg, element + "[^>]* " + name + "=\"([-0-9.]+)\""))
    list.push_back(std::stod(text));
  return list;
}

TEST(Chart, BarsStandBesideEachOtherOnZero) {
  const std::string svg = chart_svg({.x = {.categories = {"a", "b"}},
                                     .series = {{.mark = Mark::bars, .x = {0, 1}, .y = {4, 2}},
                                                {.mark = Mark::bars, .x = {0, 1}, .y = {3, 1}}}});
  const auto x = numbers(svg, "<rect fill", "x"), width = numbers(svg, "<rect fill", "width"),
             y = numbers(svg, "<rect fill", "y"), height = numbers(svg, "<rect fill", "height");
  ASSERT_EQ(x.size(), 4u);  // the first series, then the second
  EXPECT_GE(x[2], x[0] + width[0]);
  EXPECT_GE(x[1], x[2] + width[2]);
  for (int k = 0; k < 4; ++k) EXPECT_NEAR(y[k] + height[k], y[0] + height[0], 0.02) << "one foot";
  EXPECT_NEAR(height[0], 4 * height[3], 0.05);
  EXPECT_NEAR(height[2], 3 * height[3], 0.05);
}

TEST(Chart, BandsReachFromLowToHighAndWhiskersToo) {
  const Chart chart{.y = {.low = 0, .high = 1},
                    .series = {{.x = {0, 1}, .y = {.5, .5}, .low = {.25, .25}, .high = {.75, 1}}}};
  const std::string band = all(chart_svg(chart), "<polygon [^>]*points=\"([^\"]*)\"").at(0);
  const auto y = all(band, ",([0-9.]+)");
  ASSERT_EQ(y.size(), 4u);  // along the top and back along the bottom
  EXPECT_EQ(y[2], y[3]);
  EXPECT_GT(std::stod(y[2]), std::stod(y[0]));
  EXPECT_NEAR(std::stod(y[2]) - std::stod(y[1]), 1.5 * (std::stod(y[2]) - std::stod(y[0])), 0.03);
  Chart points = chart;
  points.series[0].mark = Mark::points;
  const auto whiskers = all(chart_svg(points), "d=\"(M[^\"]*h8M[^\"]*h8)\"");
  ASSERT_EQ(whiskers.size(), 2u);
  EXPECT_EQ(all(whiskers[0], "M[0-9.]+ ([0-9.]+)V").at(0), y[2]);
  EXPECT_EQ(all(whiskers[1], "V([0-9.]+)M").at(0), y[1]);
}

TEST(Chart, StepsGoAcrossAndThenUp) {
  const std::string svg = chart_svg({.series = {{.mark = Mark::steps, .x = {0, 1, 2}, .y = {0, 1, 3}}}});
  const std::string path = all(svg, "<path fill=\"none\"[^>]* d=\"([^\"]*)\"").at(0);
  EXPECT_EQ(all(path, "(H[0-9.]+V[0-9.]+)").size(), 2u) << path;
}

TEST(Chart, DashesAreThoseAskedFor) {
  EXPECT_EQ(chart_svg({.series = {{.x = {0, 1}, .y = {0, 1}}}}).find("stroke-dasharray"), std::string::npos);
  EXPECT_NE(chart_svg({.series = {{.x = {0, 1}, .y = {0, 1}, .dashed = true}}}).find("stroke-dasharray"),
            std::string::npos);
}

TEST(Chart, LongNamesNeitherOverlapNorLeaveThePicture) {
  Chart chart{.x = {.categories = std::vector<std::string>(12, "a rather long name of a class")}};
  for (int s = 0; s < 5; ++s)
    chart.series.push_back(
        {.name = "a rather long name of a series", .mark = Mark::bars, .x = {0}, .y = {1}});
  const std::string svg = chart_svg(chart);
  EXPECT_NE(svg.find("rotate(-30"), std::string::npos) << "categories are slanted";
  for (const double x : numbers(svg, "<rect fill", "x"))
    EXPECT_LT(x + 30 + 6 * 30, chart.width) << "in lines";
  chart.x.categories = {"a", "b"};
  EXPECT_EQ(chart_svg(chart).find("rotate(-30"), std::string::npos);
  chart.x.categories = std::vector<std::string>(200, "x");
  EXPECT_LE(all(chart_svg(chart), "(>x<)").size(), 40u);
}

TEST(Chart, ValuesOutOfRangeStayInside) {
  const std::string svg = chart_svg({.y = {.low = 0, .high = 1},
                                     .series = {{.mark = Mark::points,
                                                 .x = {0, 1, 2},
                                                 .y = {.5, 5, .5},
                                                 .low = {kNan, 1, .25},
                                                 .high = {.75, 9, .75}}}});
  expect_well_formed(svg);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  const auto y = numbers(svg, "<circle", "cy");
  ASSERT_EQ(y.size(), 3u);
  EXPECT_GT(y[1], 0);
}

TEST(Chart, AConstantHasAnAxisAroundIt) {
  const std::string svg = chart_svg({.series = {{.mark = Mark::points, .x = {1, 2}, .y = {5, 5}}}});
  const auto labels = all(svg, "text-anchor=\"end\" font-size=\"12\">([^<]*)<");
  ASSERT_GE(labels.size(), 2u);
  EXPECT_LE(std::stod(labels.front()), 4);
  EXPECT_GE(std::stod(labels.back()), 6);
  const auto tiny = all(chart_svg({.y = {.low = 0, .high = 4e-4}, .series = {{.x = {1}, .y = {0}}}}),
                        "text-anchor=\"end\" font-size=\"12\">([^<]*)<");
  EXPECT_EQ(tiny.back(), "0.0004");
}

}  // namespace
}  // namespace gm
