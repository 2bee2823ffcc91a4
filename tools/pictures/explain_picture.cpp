#include "tools/pictures/explain_picture.h"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/common/ceil_div.h"
#include "tools/pictures/canvas.h"

namespace gm {

namespace {

constexpr Colour kWhite{255, 255, 255}, kBlack{20, 20, 20}, kGrey{90, 90, 90}, kBlue{8, 48, 107};
constexpr double kText = 2, kNote = 1.35;  // scales of text; of notes 27 letters fit below a panel
constexpr int kMargin = 16, kGap = 10, kHeading = 34, kLine = 24, kSmall = 20;  // heights of its lines
constexpr int kLeastPanel = 224;

/// Indigo over red and orange to pale yellow, lighter all the way.
Colour heat(double t) {
  static constexpr Colour kStops[] = {
      {24, 12, 60}, {104, 24, 110}, {190, 55, 82}, {243, 130, 48}, {252, 238, 150}};
  const double at = std::clamp(t, 0.0, 1.0) * (std::size(kStops) - 1);
  const size_t i = std::min<size_t>(static_cast<size_t>(at), std::size(kStops) - 2);
  Colour c;
  for (int k = 0; k < 3; ++k)
    c[k] = static_cast<uint8_t>(kStops[i][k] +
                                (at - static_cast<double>(i)) * (kStops[i + 1][k] - kStops[i][k]) + 0.5);
  return c;
}

/// The same map over a picture: cold places show the picture.
double opacity(double t) { return 0.85 * std::min(1.0, 1.6 * t); }

/// An image at (side, side), bilinear.
Image enlarged(const Image& image, int side) {
  Image out{side, side, std::vector<uint8_t>(static_cast<size_t>(side) * side * 3)};
  std::vector<float> channel(static_cast<size_t>(image.width) * image.height);
  for (int k = 0; k < 3; ++k) {
    for (size_t i = 0; i < channel.size(); ++i) channel[i] = image.rgb[3 * i + k];
    const auto wide = enlarge_map(channel.data(), image.height, image.width, side);
    for (size_t i = 0; i < wide.size(); ++i) out.rgb[3 * i + k] = static_cast<uint8_t>(wide[i] + 0.5f);
  }
  return out;
}

/// `map` over the grey `picture`, from 0 to `top`.
Image overlay(const Image& picture, const std::vector<float>& map, double top) {
  Image out = picture;
  for (size_t i = 0; i < map.size(); ++i) {
    uint8_t* p = out.rgb.data() + 3 * i;
    const double grey = 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2],
                 t = top > 0 ? std::min(1.0, map[i] / top) : 0;
    const Colour c = heat(t);
    for (int k = 0; k < 3; ++k) p[k] = static_cast<uint8_t>(grey + opacity(t) * (c[k] - grey) + 0.5);
  }
  return out;
}

double quantile(std::vector<float> values, double q) {
  const auto at = values.begin() + static_cast<int64_t>(q * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

struct Panel {
  const char* heading;
  const char* unit;
  std::vector<float> Explanation::*map;
  double quantile;
};
const Panel kPanels[] = {{"saliency", "per grey level", &Explanation::saliency, 0.99},
                         {"SmoothGrad", "per grey level", &Explanation::smooth, 0.99},
                         {"Grad-CAM", "", &Explanation::cam, 1}};

/// "587722  true: spiral  predicted: spiral 0.97"
std::string caption(const Explanation& e, const std::vector<std::string>& classes) {
  std::string text = e.id;
  if (e.label >= 0) text += "   true: " + classes[e.label];
  text += fmt::format("   predicted: {} {:.2f}", classes[e.predicted], e.probability);
  if (e.explained != e.predicted) text += "   explained: " + classes[e.explained];
  return text;
}

void colour_bar(Canvas& canvas, int x, int y, int width, int height) {
  for (int i = 0; i < width; ++i)
    canvas.fill(x + i, y, 1, height, heat(static_cast<double>(i) / (width - 1)));
}

}  // namespace

std::vector<float> enlarge_map(const float* map, int height, int width, int size) {
  struct Tap {
    int first, second;
    float share;
  };
  auto taps = [&](int cells) {
    std::vector<Tap> list;
    for (int i = 0; i < size; ++i) {
      const double at = std::clamp((i + 0.5) * cells / size - 0.5, 0.0, cells - 1.0);
      const int first = std::min(static_cast<int>(at), cells - 1);
      list.push_back({first, std::min(first + 1, cells - 1), static_cast<float>(at - first)});
    }
    return list;
  };
  const auto down = taps(height), across = taps(width);
  std::vector<float> out;
  out.reserve(static_cast<size_t>(size) * size);
  for (const Tap& v : down)
    for (const Tap& u : across) {
      auto row = [&](int y) {
        const float a = map[y * width + u.first], b = map[y * width + u.second];
        return a + u.share * (b - a);
      };
      const float a = row(v.first), b = row(v.second);
      out.push_back(a + v.share * (b - a));
    }
  return out;
}

Image explain_picture(std::span<const Explanation> rows, const std::vector<std::string>& classes,
                      const std::string& layer) {
  std::vector<const Panel*> panels;
  for (const Panel& p : kPanels)
    if (!rows.empty() && !(rows[0].*p.map).empty()) panels.push_back(&p);
  const int size = rows.empty() ? kLeastPanel : rows[0].image.width;
  const int side = round_up(kLeastPanel, size);  // a whole multiple of the input
  const int columns = 1 + static_cast<int>(panels.size());
  const int width = columns * side + (columns - 1) * kGap, row_height = kLine + side + kSmall + kGap;
  const int height = static_cast<int>(rows.size()) * row_height + kHeading;
  Canvas canvas(width + 2 * kMargin, height + 2 * kMargin + kLine, kWhite);
  auto column = [&](int k) { return kMargin + k * (side + kGap); };
  auto centred = [&](int k, int y, double scale, Colour colour, const std::string& text) {
    const std::string fits = Canvas::shortened(text, static_cast<int>(side / (scale * Canvas::kAdvance)));
    canvas.text(column(k) + (side - Canvas::text_width(fits, scale)) / 2, y, scale, colour, fits);
  };
  // At the left margin, smaller and then shortened where it is long.
  auto fitting = [&](int y, int room, Colour colour, const std::string& text) {
    const double scale = Canvas::text_width(text, kText) <= room ? kText : kNote;
    canvas.text(kMargin, y, scale, colour,
                Canvas::shortened(text, static_cast<int>(room / (scale * Canvas::kAdvance))));
  };
  int y = kMargin;
  centred(0, y, kText, kBlack, fmt::format("input {} px", size));
  for (int k = 1; k < columns; ++k) centred(k, y, kText, kBlack, panels[k - 1]->heading);
  y += kHeading;
  for (const Explanation& e : rows) {
    fitting(y, width, kBlue, caption(e, classes));
    y += kLine;
    const Image picture = enlarged(e.image, side);
    canvas.paste(column(0), y, picture);
    for (int k = 1; k < columns; ++k) {
      const auto& map = e.*panels[k - 1]->map;
      const double top = quantile(map, panels[k - 1]->quantile);
      canvas.paste(column(k), y, overlay(picture, enlarge_map(map.data(), size, size, side), top));
      centred(k, y + side + 5, kNote, kGrey, fmt::format("0 to {:.2g} {}", top, panels[k - 1]->unit));
    }
    y += side + kSmall + kGap;
  }
  if (panels.empty()) return canvas.image();
  const std::string from = "0", to = "full scale";
  const int bar = 120, right = kMargin + width - Canvas::text_width(to, kText), bar_left = right - 10 - bar;
  canvas.text(right, y + 4, kText, kBlack, to);
  colour_bar(canvas, bar_left, y + 4, bar, 14);
  canvas.text(bar_left - 20, y + 4, kText, kBlack, from);
  if (panels.back()->map == &Explanation::cam)
    fitting(y + 4, bar_left - 40 - kMargin, kBlack, "Grad-CAM of " + layer);
  return canvas.image();
}

}  // namespace gm
