// A picture to draw on: rectangles, lines, other pictures, and text in a built-in font.
#pragma once
#include <array>
#include <span>
#include <string>
#include <utility>

#include "data/image.h"

namespace gm {

using Colour = std::array<uint8_t, 3>;  // RGB

class Canvas {
 public:
  /// Text is 5x7 font pixels a letter, two more below for descenders, one apart, times the scale.
  static constexpr int kAdvance = 6, kHeight = 7;

  Canvas(int width, int height, Colour background);
  const Image& image() const { return image_; }
  /// Everything is clipped at the edges.
  void fill(int x, int y, int width, int height, Colour colour);
  void paste(int x, int y, const Image& picture);
  /// A line with round ends, smoothed; x and y in pixels, pixel k spanning [k, k + 1). A dot where both ends
  /// are one point.
  void line(double x0, double y0, double x1, double y1, double width, Colour colour);
  void lines(std::span<const std::pair<double, double>> points, double width, Colour colour);
  /// (x, y) is the upper left corner of the first letter. Letters that the font lacks become a box. At scale
  /// 1 font pixels are pixels, above they are joined to smooth strokes.
  void text(int x, int y, double scale, Colour colour, const std::string& text);
  /// The same turned by 90 degrees, read from below: (x, y) is the lower left corner of the turned text.
  void text_upwards(int x, int y, double scale, Colour colour, const std::string& text);
  /// Length of a UTF-8 text in letters, and in pixels at this scale.
  static int letters(const std::string& text);
  static int text_width(const std::string& text, double scale);
  /// At most so many letters: a longer text loses its end to "..".
  static std::string shortened(std::string text, int letters);

 private:
  struct Placing;
  void glyphs(const std::string& text, const Placing& place);
  void blend(int x, int y, Colour colour, double share);
  Image image_;
};

}  // namespace gm
