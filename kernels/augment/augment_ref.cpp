#include <algorithm>
#include <string>

#include "kernels/augment/augment.h"
#include "kernels/common/op.h"

namespace gm::ref {

namespace {

double window_pixel(const uint8_t* image, const AugmentSample& s, int64_t i, int64_t j, int c) {
  double sum = 0;
  for (int b = 0; b < s.step_y; ++b)
    for (int a = 0; a < s.step_x; ++a) {
      const int64_t x = inside_index<int64_t>(s.window_x + i * s.step_x + a, s.width, s.border);
      const int64_t y = inside_index<int64_t>(s.window_y + j * s.step_y + b, s.height, s.border);
      sum += x < 0 || y < 0 ? 0.0 : image[(y * s.width + x) * 3 + c];
    }
  return sum / (s.step_x * s.step_y);
}

}  // namespace

void augment_forward(const OpCall& call) {
  const int64_t n = call.out[0].shape()[0], size = call.out[0].shape()[1], pixels = size * size;
  double* out = call.out[0].as<double>();
  for (int64_t k = 0; k < n; ++k, out += pixels * 3) {
    const AugmentSample& s = reinterpret_cast<const AugmentSample*>(call.in[1].as<uint8_t>())[k];
    const uint8_t* image = call.in[0].as<uint8_t>() + s.offset;
    const Affine& m = s.to_window;
    for (int64_t v = 0; v < size; ++v)
      for (int64_t u = 0; u < size; ++u)
        for (int c = 0; c < 3; ++c) {
          double sum = 0;
          for (int b = 0; b < s.taps_y; ++b)
            for (int a = 0; a < s.taps_x; ++a) {
              const double du = u + (a + 0.5) / s.taps_x, dv = v + (b + 0.5) / s.taps_y;
              const double x = m.xx * du + m.xy * dv + m.x0, y = m.yx * du + m.yy * dv + m.y0;
              const int64_t i = static_cast<int64_t>(x), j = static_cast<int64_t>(y);
              const double fx = x - i, fy = y - j;
              auto at = [&](int64_t p, int64_t q) { return window_pixel(image, s, p, q, c); };
              sum += (1 - fy) * ((1 - fx) * at(i, j) + fx * at(i + 1, j)) +
                     fy * ((1 - fx) * at(i, j + 1) + fx * at(i + 1, j + 1));
            }
          out[(v * size + u) * 3 + c] = sum / (s.taps_x * s.taps_y);
        }
    if (s.recolour) {
      double grey = 0;
      for (int64_t p = 0; p < pixels; ++p)
        grey += (0.299 * out[p * 3] + 0.587 * out[p * 3 + 1] + 0.114 * out[p * 3 + 2]) / pixels;
      for (int64_t p = 0; p < pixels; ++p) {
        const double rgb[3] = {out[p * 3], out[p * 3 + 1], out[p * 3 + 2]};
        for (int r = 0; r < 3; ++r)
          out[p * 3 + r] = std::clamp(s.colour[r * 3] * rgb[0] + s.colour[r * 3 + 1] * rgb[1] +
                                          s.colour[r * 3 + 2] * rgb[2] + s.grey_share * grey,
                                      0.0, 255.0);
      }
    }
    for (int64_t p = 0; p < pixels * 3; ++p) {
      const std::string c = std::to_string(p % 3);
      out[p] = (out[p] - call.attrs.get("mean" + c, 0)) / call.attrs.get("std" + c, 1);
    }
  }
}

}  // namespace gm::ref
