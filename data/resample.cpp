#include "data/resample.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace gm {
namespace {

// Four floats at any address: R, G, B and a lane that is never stored.
typedef float Float4 __attribute__((vector_size(16)));
typedef float Float4Unaligned __attribute__((vector_size(16), aligned(4), may_alias));

inline Float4 load(const float* p) { return *reinterpret_cast<const Float4Unaligned*>(p); }

/// Index inside [0, n) that stands for `i`, or -1 for black.
int64_t outside(int64_t i, int64_t n, Border fill) {
  if (i >= 0 && i < n) return i;
  if (fill == Border::zero) return -1;
  if (fill == Border::edge) return i < 0 ? 0 : n - 1;
  int64_t period = 2 * n, m = ((i % period) + period) % period;  // d c b a | a b c d | d c b a
  return m < n ? m : period - 1 - m;
}

/// `count` source pixels of row y from column x on as floats, outside ones by the fill rule.
void expand_row(const Image& image, int64_t y, int64_t x, int64_t count, Border fill, float* out) {
  int64_t width = image.width;
  y = outside(y, image.height, fill);
  if (y < 0) {
    std::fill(out, out + count * 3, 0.0f);
    return;
  }
  const uint8_t* row = image.rgb.data() + y * width * 3;
  int64_t a = std::clamp<int64_t>(x, 0, width), b = std::clamp<int64_t>(x + count, a, width);
  const uint8_t* from = row + a * 3;
  float* to = out + (a - x) * 3;
  if (b > a)
    for (int64_t i = 0, n = (b - a) * 3; i < n; ++i) to[i] = static_cast<float>(from[i]);
  auto fill_pixel = [&](int64_t i) {
    int64_t m = outside(x + i, width, fill);
    for (int c = 0; c < 3; ++c) out[i * 3 + c] = m < 0 ? 0.0f : static_cast<float>(row[m * 3 + c]);
  };
  int64_t inside_from = std::clamp<int64_t>(-x, 0, count),
          inside_to = std::clamp<int64_t>(width - x, 0, count);
  for (int64_t i = 0; i < inside_from; ++i) fill_pixel(i);
  for (int64_t i = std::max(inside_from, inside_to); i < count; ++i) fill_pixel(i);
}

/// The part of the source that an output needs, as floats, shrunk by whole factors.
struct Window {
  int64_t x, y;            // source position of its corner
  int64_t width, height;   // in its own pixels
  int64_t step_x, step_y;  // source pixels per pixel of its own
  std::vector<float> rgb, line, sum;

  const float* fill_from(const Image& image, Border fill) {
    size_t row = static_cast<size_t>(width) * 3;
    rgb.resize(row * height + 4);  // + 4: the last pixel is loaded with a lane to spare
    if (step_x == 1 && step_y == 1) {
      for (int64_t j = 0; j < height; ++j) expand_row(image, y + j, x, width, fill, rgb.data() + j * row);
      return rgb.data();
    }
    line.resize(row * step_x);
    sum.resize(row * step_x);
    float scale = 1.0f / static_cast<float>(step_x * step_y);
    for (int64_t j = 0; j < height; ++j) {
      std::fill(sum.begin(), sum.end(), 0.0f);
      for (int64_t k = 0; k < step_y; ++k) {
        expand_row(image, y + j * step_y + k, x, width * step_x, fill, line.data());
        for (size_t i = 0; i < line.size(); ++i) sum[i] += line[i];
      }
      float* out = rgb.data() + j * row;
      for (int64_t i = 0; i < width; ++i)
        for (int c = 0; c < 3; ++c) {
          float total = 0;
          for (int64_t k = 0; k < step_x; ++k) total += sum[(i * step_x + k) * 3 + c];
          out[i * 3 + c] = total * scale;
        }
    }
    return rgb.data();
  }
};

int64_t whole_step(double ratio) { return ratio > 4 ? static_cast<int64_t>(ratio / 2) : 1; }
int taps_for(double ratio) { return std::max(1, static_cast<int>(std::ceil(ratio - 1e-6))); }

}  // namespace

void resample(const Image& image, const Affine& affine, double ratio_x, double ratio_y, Border fill, int size,
              float* out) {
  // One window a thread: the worker's memory is reused from image to image.
  static thread_local Window window;
  window.step_x = whole_step(ratio_x);
  window.step_y = whole_step(ratio_y);
  double x1 = affine.x0 + std::min(0.0, affine.xx * size) + std::min(0.0, affine.xy * size);
  double x2 = affine.x0 + std::max(0.0, affine.xx * size) + std::max(0.0, affine.xy * size);
  double y1 = affine.y0 + std::min(0.0, affine.yx * size) + std::min(0.0, affine.yy * size);
  double y2 = affine.y0 + std::max(0.0, affine.yx * size) + std::max(0.0, affine.yy * size);
  // A pixel of margin all round: bilinear taps reach half a pixel out, and positions stay positive, so that
  // truncation is floor.
  window.x = static_cast<int64_t>(std::floor(x1 + 1e-6)) - window.step_x;
  window.y = static_cast<int64_t>(std::floor(y1 + 1e-6)) - window.step_y;
  window.width = static_cast<int64_t>(std::ceil((x2 - window.x) / window.step_x)) + 2;
  window.height = static_cast<int64_t>(std::ceil((y2 - window.y) / window.step_y)) + 2;
  const float* pixels = window.fill_from(image, fill);

  // From here on in window pixels, positions of pixel centres being whole numbers.
  double sx = 1.0 / window.step_x, sy = 1.0 / window.step_y;
  double xx = affine.xx * sx, xy = affine.xy * sx, x0 = (affine.x0 - window.x) * sx - 0.5;
  double yx = affine.yx * sy, yy = affine.yy * sy, y0 = (affine.y0 - window.y) * sy - 0.5;
  int nu = taps_for(ratio_x * sx), nv = taps_for(ratio_y * sy), taps = nu * nv;
  float tap_x[64], tap_y[64];
  for (int j = 0, t = 0; j < nv; ++j)
    for (int i = 0; i < nu; ++i, ++t) {
      double du = (i + 0.5) / nu, dv = (j + 0.5) / nv;
      tap_x[t] = static_cast<float>(xx * du + xy * dv);
      tap_y[t] = static_cast<float>(yx * du + yy * dv);
    }
  const int64_t stride = window.width * 3;
  const float share = 1.0f / static_cast<float>(taps);
  const Float4 share4 = {share, share, share, share};
  for (int v = 0; v < size; ++v)
    for (int u = 0; u < size; ++u) {
      float bx = static_cast<float>(xx * u + xy * v + x0), by = static_cast<float>(yx * u + yy * v + y0);
      Float4 sum = {0, 0, 0, 0};
      for (int t = 0; t < taps; ++t) {
        float x = bx + tap_x[t], y = by + tap_y[t];
        int xi = static_cast<int>(x), yi = static_cast<int>(y);
        float fx = x - static_cast<float>(xi), fy = y - static_cast<float>(yi);
        const float* p = pixels + yi * stride + xi * 3;
        Float4 fx4 = {fx, fx, fx, fx}, fy4 = {fy, fy, fy, fy};
        Float4 top = load(p) + fx4 * (load(p + 3) - load(p));
        Float4 bottom = load(p + stride) + fx4 * (load(p + stride + 3) - load(p + stride));
        sum += top + fy4 * (bottom - top);
      }
      sum *= share4;
      float* to = out + (static_cast<size_t>(v) * size + u) * 3;
      to[0] = sum[0];
      to[1] = sum[1];
      to[2] = sum[2];
    }
}

}  // namespace gm
