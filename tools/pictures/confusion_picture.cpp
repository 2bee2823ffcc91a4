#include "tools/pictures/confusion_picture.h"

#include <fmt/format.h>

#include <algorithm>

#include "tools/pictures/canvas.h"

namespace gm {

namespace {

constexpr Colour kWhite{255, 255, 255}, kBlack{20, 20, 20}, kGrey{150, 150, 150}, kLine{205, 210, 218},
    kBlue{8, 48, 107};
constexpr int kMargin = 16, kScale = 2, kLine1 = 12, kLine2 = 24;  // heights of a line at scales 1 and 2
constexpr int kMostLetters = 28;

/// "3 Cigar Shaped Smooth", shortened where it is long.
std::string label(const std::vector<std::string>& classes, int c) {
  const std::string index = std::to_string(c), &name = classes[c];
  return Canvas::shortened(name == index ? name : index + " " + name, kMostLetters);
}

Colour shade(double share) {
  Colour c;
  for (int k = 0; k < 3; ++k) c[k] = static_cast<uint8_t>(kWhite[k] + share * (kBlue[k] - kWhite[k]) + 0.5);
  return c;
}

void centred(Canvas& canvas, int x, int y, int scale, Colour colour, const std::string& text) {
  canvas.text(x - Canvas::text_width(text, scale) / 2, y, scale, colour, text);
}

}  // namespace

Image confusion_picture(const ConfusionMatrix& confusion, const std::vector<std::string>& classes) {
  const int n = confusion.classes();
  const bool text = n <= 64, percent = n <= 24;
  const int cell = percent ? 64 : text ? 32 : std::max(1, 2048 / n);
  int label_width = 0;
  for (int c = 0; c < n && text; ++c)
    label_width = std::max(label_width, Canvas::text_width(label(classes, c), kScale) + kMargin / 2);

  const int64_t total = confusion.total(), correct = confusion.correct();
  const std::string title =
      fmt::format("accuracy {:.4f}  ({} of {} images)",
                  total ? static_cast<double>(correct) / static_cast<double>(total) : 0.0, correct, total);
  const int side = n * cell, left = kMargin + kLine2 + label_width,
            top = kMargin + kLine2 + kLine2 + kMargin / 2 + label_width;
  Canvas canvas(std::max(left + side, kMargin + Canvas::text_width(title, kScale)) + kMargin,
                top + side + kMargin + kLine1 + kMargin / 2, kWhite);
  canvas.text(kMargin, kMargin, kScale, kBlack, title);
  centred(canvas, left + side / 2, kMargin + kLine2 + 4, kScale, kBlack, "predicted class");
  canvas.text_upwards(kMargin, top + (side + Canvas::text_width("true class", kScale)) / 2, kScale, kBlack,
                      "true class");
  canvas.text(left, top + side + kMargin / 2 + 4, 1, kBlack, "shade: share of the true class");

  for (int t = 0; t < n; ++t) {
    const int y = top + t * cell, middle = y + cell / 2;
    int64_t row = 0;
    for (int p = 0; p < n; ++p) row += confusion.at(t, p);
    if (text) {
      const std::string name = label(classes, t);
      canvas.text(left - kMargin / 2 - Canvas::text_width(name, kScale), middle - Canvas::kHeight, kScale,
                  kBlack, name);
      canvas.text_upwards(left + t * cell + cell / 2 - Canvas::kHeight, top - kMargin / 2, kScale, kBlack,
                          name);
    }
    for (int p = 0; p < n; ++p) {
      const int64_t count = confusion.at(t, p);
      const double share = row ? static_cast<double>(count) / static_cast<double>(row) : 0;
      const int x = left + p * cell;
      canvas.fill(x, y, cell, cell, text ? kLine : shade(share));
      if (!text) continue;
      canvas.fill(x + 1, y + 1, cell - 1, cell - 1, shade(share));
      const Colour ink = count == 0 ? kGrey : share > 0.5 ? kWhite : kBlack;
      const std::string digits = std::to_string(count);
      const int scale = Canvas::text_width(digits, kScale) + 4 <= cell ? kScale : 1;
      const int lift = percent && count ? 8 : 0;
      centred(canvas, x + cell / 2, middle - scale * Canvas::kHeight / 2 - lift, scale, ink, digits);
      if (lift) centred(canvas, x + cell / 2, middle + lift, 1, ink, fmt::format("{:.1f} %", 100 * share));
    }
  }
  if (text) {
    canvas.fill(left, top + side, side + 1, 1, kLine);
    canvas.fill(left + side, top, 1, side + 1, kLine);
  }
  return canvas.image();
}

}  // namespace gm
