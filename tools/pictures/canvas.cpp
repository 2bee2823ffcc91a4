#include "tools/pictures/canvas.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <unordered_map>

namespace gm {

namespace {

/// One base-32 digit (0-9a-v) a row, from the top; the highest of its five bits is the leftmost pixel. Seven
/// rows, or nine with a descender.
const std::unordered_map<char, std::string_view> kFont = {
    {'0', "ehjlphe"},   {'1', "4c4444e"},   {'2', "eh1248v"},   {'3', "v2421he"},  {'4', "26aiv22"},
    {'5', "vgu11he"},   {'6', "68guhhe"},   {'7', "v124888"},   {'8', "ehhehhe"},  {'9', "ehhf12c"},
    {'A', "ehhvhhh"},   {'B', "uhhuhhu"},   {'C', "ehggghe"},   {'D', "sihhhis"},  {'E', "vgguggv"},
    {'F', "vgguggg"},   {'G', "ehgnhhf"},   {'H', "hhhvhhh"},   {'I', "e44444e"},  {'J', "72222ic"},
    {'K', "hikokih"},   {'L', "ggggggv"},   {'M', "hrllhhh"},   {'N', "hhpljhh"},  {'O', "ehhhhhe"},
    {'P', "uhhuggg"},   {'Q', "ehhhlid"},   {'R', "uhhukih"},   {'S', "fgge11u"},  {'T', "v444444"},
    {'U', "hhhhhhe"},   {'V', "hhhhha4"},   {'W', "hhhllla"},   {'X', "hha4ahh"},  {'Y', "hhha444"},
    {'Z', "v1248gv"},   {'a', "00e1fhf"},   {'b', "ggmphhu"},   {'c', "00egghe"},  {'d', "11djhhf"},
    {'e', "00ehvge"},   {'f', "698s888"},   {'g', "00fhhhf1e"}, {'h', "ggmphhh"},  {'i', "40c444e"},
    {'j', "2062222ic"}, {'k', "ggikoki"},   {'l', "c44444e"},   {'m', "00qllhh"},  {'n', "00mphhh"},
    {'o', "00ehhhe"},   {'p', "00uhhhugg"}, {'q', "00djhhf11"}, {'r', "00mpggg"},  {'s', "00ege1u"},
    {'t', "88s8896"},   {'u', "00hhhjd"},   {'v', "00hhha4"},   {'w', "00hhlla"},  {'x', "00ha4ah"},
    {'y', "00hhhjd1e"}, {'z', "00v248v"},   {' ', "0000000"},   {'-', "000e000"},  {'_', "000000v"},
    {'.', "00000cc"},   {',', "00000cc48"}, {':', "0cc0cc0"},   {'/', "01248g0"},  {'%', "op248j3"},
    {'(', "2488842"},   {')', "8422248"},   {'[', "e88888e"},   {']', "e22222e"},  {'+', "044v440"},
    {'=', "00v0v00"},   {'#', "aavavaa"},   {'&', "cik8lid"},   {'\'', "c480000"}, {'"', "aa00000"},
    {'?', "eh12404"},   {'!', "4444404"},   {'<', "248g842"},   {'>', "8421248"},  {'*', "04lel40"}};
constexpr std::string_view kUnknown = "vhhhhhv";

int digit(char c) { return c <= '9' ? c - '0' : c - 'a' + 10; }
bool continues_letter(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }  // UTF-8

}  // namespace

Canvas::Canvas(int width, int height, Colour background)
    : image_{width, height, std::vector<uint8_t>(static_cast<size_t>(width) * height * 3)} {
  fill(0, 0, width, height, background);
}

void Canvas::fill(int x, int y, int width, int height, Colour colour) {
  for (int v = std::max(0, y); v < std::min(y + height, image_.height); ++v)
    for (int u = std::max(0, x); u < std::min(x + width, image_.width); ++u)
      std::copy(colour.begin(), colour.end(),
                image_.rgb.begin() + (static_cast<int64_t>(v) * image_.width + u) * 3);
}

void Canvas::paste(int x, int y, const Image& picture) {
  for (int v = std::max(0, -y); v < std::min(picture.height, image_.height - y); ++v) {
    const int from = std::max(0, -x), to = std::min(picture.width, image_.width - x);
    if (from >= to) return;
    const auto* row = picture.rgb.data() + (static_cast<int64_t>(v) * picture.width + from) * 3;
    std::copy(row, row + (to - from) * 3,
              image_.rgb.begin() + (static_cast<int64_t>(y + v) * image_.width + x + from) * 3);
  }
}

void Canvas::blend(int x, int y, Colour colour, double share) {
  if (x < 0 || y < 0 || x >= image_.width || y >= image_.height) return;
  uint8_t* p = image_.rgb.data() + (static_cast<int64_t>(y) * image_.width + x) * 3;
  for (int k = 0; k < 3; ++k) p[k] = static_cast<uint8_t>(p[k] + share * (colour[k] - p[k]) + 0.5);
}

// Coverage of a pixel is taken from the distance of its centre to the line: exact enough for the eye.
void Canvas::line(double x0, double y0, double x1, double y1, double width, Colour colour) {
  const double reach = width / 2 + 1, dx = x1 - x0, dy = y1 - y0, length2 = dx * dx + dy * dy;
  for (int v = static_cast<int>(std::floor(std::min(y0, y1) - reach)); v < std::max(y0, y1) + reach; ++v)
    for (int u = static_cast<int>(std::floor(std::min(x0, x1) - reach)); u < std::max(x0, x1) + reach; ++u) {
      const double px = u + 0.5 - x0, py = v + 0.5 - y0;
      const double t = length2 > 0 ? std::clamp((px * dx + py * dy) / length2, 0.0, 1.0) : 0;
      const double share = width / 2 + 0.5 - std::hypot(px - t * dx, py - t * dy);
      if (share > 0) blend(u, v, colour, std::min(1.0, share));
    }
}

void Canvas::lines(std::span<const std::pair<double, double>> points, double width, Colour colour) {
  for (size_t i = 1; i < points.size(); ++i)
    line(points[i - 1].first, points[i - 1].second, points[i].first, points[i].second, width, colour);
}

/// Where font position (across, down), in font pixels, lies on the canvas.
struct Canvas::Placing {
  int x, y;
  double scale;
  Colour colour;
  bool upwards;
};

void Canvas::glyphs(const std::string& text, const Placing& place) {
  const double s = place.scale;
  auto at = [&](double across, double down) {
    return place.upwards ? std::pair(place.x + down * s, place.y - across * s)
                         : std::pair(place.x + across * s, place.y + down * s);
  };
  int start = 0;
  for (char c : text) {
    if (continues_letter(c)) continue;
    const auto found = kFont.find(c);
    const std::string_view rows = found == kFont.end() ? kUnknown : found->second;
    auto set = [&](int bit, int row) {
      return bit >= 0 && bit < 5 && row >= 0 && row < static_cast<int>(rows.size()) &&
             (digit(rows[row]) >> (4 - bit) & 1);
    };
    for (int r = 0; r < static_cast<int>(rows.size()); ++r)
      for (int b = 0; b < 5; ++b) {
        if (!set(b, r)) continue;
        if (s == 1) {
          const auto [x, y] = at(start + b, r);
          fill(static_cast<int>(x), static_cast<int>(y) - place.upwards, 1, 1, place.colour);
          continue;
        }
        auto stroke = [&](int to_bit, int to_row) {
          const auto [x0, y0] = at(start + b + 0.5, r + 0.5);
          const auto [x1, y1] = at(start + to_bit + 0.5, to_row + 0.5);
          line(x0, y0, x1, y1, 0.75 * s, place.colour);
        };
        // A diagonal joins two pixels only where no neighbour of both does.
        stroke(b, r);
        if (set(b + 1, r)) stroke(b + 1, r);
        if (set(b, r + 1)) stroke(b, r + 1);
        if (set(b + 1, r + 1) && !set(b + 1, r) && !set(b, r + 1)) stroke(b + 1, r + 1);
        if (set(b - 1, r + 1) && !set(b - 1, r) && !set(b, r + 1)) stroke(b - 1, r + 1);
      }
    start += kAdvance;
  }
}

void Canvas::text(int x, int y, double scale, Colour colour, const std::string& text) {
  glyphs(text, {x, y, scale, colour, false});
}

void Canvas::text_upwards(int x, int y, double scale, Colour colour, const std::string& text) {
  glyphs(text, {x, y, scale, colour, true});
}

int Canvas::letters(const std::string& text) {
  return static_cast<int>(text.size() - std::count_if(text.begin(), text.end(), continues_letter));
}

int Canvas::text_width(const std::string& text, double scale) {
  return static_cast<int>(std::max(0, letters(text) * kAdvance - 1) * scale);
}

std::string Canvas::shortened(std::string text, int most) {
  if (letters(text) <= most) return text;
  size_t end = 0;
  for (int kept = 0; end < text.size(); ++end)
    if (!continues_letter(text[end]) && ++kept > most - 2) break;
  return text.substr(0, end) + "..";
}

}  // namespace gm
