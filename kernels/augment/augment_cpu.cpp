#include <algorithm>
#include <vector>

#include "kernels/augment/augment.h"
#include "kernels/common/op.h"
#include "kernels/common/parallel.h"
#include "kernels/normalize/normalize.h"

// Compiled without contraction of a * b + c (kernels/CMakeLists.txt): the pixels are the same bits under
// every instruction set. It also runs outside the device's pool, one image a call, in the threads of the
// loader: those bring no pool, and keep one window each.
namespace gm::GM_CPU_NS {

namespace {

// Four floats at any address: R, G, B and a lane that is never stored.
typedef float Float4 __attribute__((vector_size(16)));
typedef float Float4Unaligned __attribute__((vector_size(16), aligned(4), may_alias));

inline Float4 load(const float* p) { return *reinterpret_cast<const Float4Unaligned*>(p); }

/// `count` source pixels of row y from column x on as floats, outside ones by the border rule.
void expand_row(const uint8_t* image, const AugmentSample& s, int64_t y, int64_t x, int64_t count,
                float* out) {
  const int64_t width = s.width;
  y = inside_index<int64_t>(y, s.height, s.border);
  if (y < 0) {
    std::fill(out, out + count * 3, 0.0f);
    return;
  }
  const uint8_t* row = image + y * width * 3;
  const int64_t a = std::clamp<int64_t>(x, 0, width), b = std::clamp<int64_t>(x + count, a, width);
  const uint8_t* from = row + a * 3;
  float* to = out + (a - x) * 3;
  if (b > a)
    for (int64_t i = 0, n = (b - a) * 3; i < n; ++i) to[i] = static_cast<float>(from[i]);
  auto fill_pixel = [&](int64_t i) {
    const int64_t m = inside_index(x + i, width, s.border);
    for (int c = 0; c < 3; ++c) out[i * 3 + c] = m < 0 ? 0.0f : static_cast<float>(row[m * 3 + c]);
  };
  const int64_t inside_from = std::clamp<int64_t>(-x, 0, count),
                inside_to = std::clamp<int64_t>(width - x, 0, count);
  for (int64_t i = 0; i < inside_from; ++i) fill_pixel(i);
  for (int64_t i = std::max(inside_from, inside_to); i < count; ++i) fill_pixel(i);
}

/// The part of the source that an output needs, as floats, shrunk by whole factors.
struct Window {
  std::vector<float> rgb, line, sum;

  const float* fill_from(const uint8_t* image, const AugmentSample& s) {
    const int64_t width = s.window_width, height = s.window_height;
    const size_t row = static_cast<size_t>(width) * 3;
    rgb.resize(row * height + 4);  // + 4: the last pixel is loaded with a lane to spare
    if (s.step_x == 1 && s.step_y == 1) {
      for (int64_t j = 0; j < height; ++j)
        expand_row(image, s, s.window_y + j, s.window_x, width, rgb.data() + j * row);
      return rgb.data();
    }
    line.resize(row * s.step_x);
    sum.resize(row * s.step_x);
    const float scale = 1.0f / static_cast<float>(s.step_x * s.step_y);
    for (int64_t j = 0; j < height; ++j) {
      std::fill(sum.begin(), sum.end(), 0.0f);
      for (int64_t k = 0; k < s.step_y; ++k) {
        expand_row(image, s, s.window_y + j * s.step_y + k, s.window_x, width * s.step_x, line.data());
        for (size_t i = 0; i < line.size(); ++i) sum[i] += line[i];
      }
      float* out = rgb.data() + j * row;
      for (int64_t i = 0; i < width; ++i)
        for (int c = 0; c < 3; ++c) {
          float total = 0;
          for (int64_t k = 0; k < s.step_x; ++k) total += sum[(i * s.step_x + k) * 3 + c];
          out[i * 3 + c] = total * scale;
        }
    }
    return rgb.data();
  }
};

void sample_pixels(const uint8_t* image, const AugmentSample& s, int size, float* out) {
  static thread_local Window window;
  const float* pixels = window.fill_from(image, s);
  const Affine& m = s.to_window;
  const int taps = s.taps_x * s.taps_y;
  float tap_x[kMaxTaps * kMaxTaps], tap_y[kMaxTaps * kMaxTaps];
  for (int j = 0, t = 0; j < s.taps_y; ++j)
    for (int i = 0; i < s.taps_x; ++i, ++t) {
      const double du = (i + 0.5) / s.taps_x, dv = (j + 0.5) / s.taps_y;
      tap_x[t] = static_cast<float>(m.xx * du + m.xy * dv);
      tap_y[t] = static_cast<float>(m.yx * du + m.yy * dv);
    }
  const int64_t stride = int64_t{s.window_width} * 3;
  const float share = 1.0f / static_cast<float>(taps);
  const Float4 share4 = {share, share, share, share};
  for (int v = 0; v < size; ++v)
    for (int u = 0; u < size; ++u) {
      const float bx = static_cast<float>(m.xx * u + m.xy * v + m.x0),
                  by = static_cast<float>(m.yx * u + m.yy * v + m.y0);
      Float4 sum = {0, 0, 0, 0};
      for (int t = 0; t < taps; ++t) {
        const float x = bx + tap_x[t], y = by + tap_y[t];
        const int xi = static_cast<int>(x), yi = static_cast<int>(y);
        const float fx = x - static_cast<float>(xi), fy = y - static_cast<float>(yi);
        const float* p = pixels + yi * stride + xi * 3;
        const Float4 fx4 = {fx, fx, fx, fx}, fy4 = {fy, fy, fy, fy};
        const Float4 top = load(p) + fx4 * (load(p + 3) - load(p));
        const Float4 bottom = load(p + stride) + fx4 * (load(p + stride + 3) - load(p + stride));
        sum += top + fy4 * (bottom - top);
      }
      sum *= share4;
      float* to = out + (static_cast<size_t>(v) * size + u) * 3;
      to[0] = sum[0];
      to[1] = sum[1];
      to[2] = sum[2];
    }
}

void recolour(const AugmentSample& s, int64_t pixels, float* rgb) {
  double total[3] = {0, 0, 0};
  for (int64_t i = 0; i < pixels; ++i)
    for (int c = 0; c < 3; ++c) total[c] += rgb[i * 3 + c];
  const double grey = (0.299 * total[0] + 0.587 * total[1] + 0.114 * total[2]) / pixels;
  const float offset = static_cast<float>(s.grey_share * grey);
  const float* m = s.colour;
  for (int64_t i = 0; i < pixels; ++i) {
    const float r = rgb[i * 3], g = rgb[i * 3 + 1], b = rgb[i * 3 + 2];
    for (int c = 0; c < 3; ++c) {
      const float value = m[c * 3] * r + m[c * 3 + 1] * g + m[c * 3 + 2] * b + offset;
      rgb[i * 3 + c] = value < 0 ? 0.0f : value > 255 ? 255.0f : value;
    }
  }
}

/// The input scaling; `out` may be `rgb`.
template <class Y>
void scale(const PixelScaling& p, int64_t pixels, const float* rgb, Y* out) {
  for (int64_t i = 0; i < pixels; ++i)
    for (int c = 0; c < 3; ++c) out[i * 3 + c] = from_float<Y>((rgb[i * 3 + c] - p.mean[c]) / p.std[c]);
}

}  // namespace

void augment_forward(const OpCall& c) {
  const auto* samples = reinterpret_cast<const AugmentSample*>(c.in[1].as<uint8_t>());
  const uint8_t* images = c.in[0].as<uint8_t>();
  const int size = static_cast<int>(c.out[0].shape()[1]);
  const int64_t n = c.out[0].shape()[0], pixels = int64_t{size} * size;
  const PixelScaling scaling = pixel_scaling(c.attrs);
  bool scaled = false;
  for (int k = 0; k < 3; ++k) scaled |= scaling.mean[k] != 0 || scaling.std[k] != 1;
  auto one = [&](int64_t i, float* rgb) {
    sample_pixels(images + samples[i].offset, samples[i], size, rgb);
    if (samples[i].recolour) recolour(samples[i], pixels, rgb);
  };
  auto some = [&](int64_t begin, int64_t end, int) {
    if (c.out[0].dtype() == DType::bf16) {
      static thread_local std::vector<float> rgb;
      rgb.resize(pixels * 3);
      for (int64_t i = begin; i < end; ++i) {
        one(i, rgb.data());
        scale(scaling, pixels, rgb.data(), c.out[0].as<bf16>() + i * pixels * 3);
      }
      return;
    }
    for (int64_t i = begin; i < end; ++i) {
      float* out = c.out[0].as<float>() + i * pixels * 3;
      one(i, out);
      if (scaled) scale(scaling, pixels, out, out);
    }
  };
  if (c.ctx.pool)
    c.ctx.pool->ranges(n, 1, some);
  else
    some(0, n, 0);
}

}  // namespace gm::GM_CPU_NS
