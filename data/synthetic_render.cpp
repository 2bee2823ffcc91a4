#include "data/synthetic_render.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/common/philox.h"

namespace gm {
namespace {

using std::numbers::pi;
constexpr double kFrame = 256;

/// Smooth noise in [-1, 1] with one random value every `cell` px.
class PatchNoise {
 public:
  PatchNoise(PhiloxStream rng, double cell) : cell_(cell), values_(kSide * kSide) {
    for (double& v : values_) v = rng.uniform(-1, 1);
  }
  double operator()(double x, double y) const {
    x = x / cell_ + 4096, y = y / cell_ + 4096;
    int xi = static_cast<int>(x), yi = static_cast<int>(y);
    double fx = x - xi, fy = y - yi;
    fx *= fx * (3 - 2 * fx), fy *= fy * (3 - 2 * fy);
    double top = at(xi, yi) + fx * (at(xi + 1, yi) - at(xi, yi));
    double bottom = at(xi, yi + 1) + fx * (at(xi + 1, yi + 1) - at(xi, yi + 1));
    return top + fy * (bottom - top);
  }

 private:
  static constexpr int kSide = 64;
  double at(int x, int y) const { return values_[(y % kSide) * kSide + x % kSide]; }
  double cell_;
  std::vector<double> values_;
};

/// std::hypot guards against overflow, which costs most of the rendering time and cannot happen here.
double radius(double x, double y) { return std::sqrt(x * x + y * y); }

struct Light {
  double body = 0, arms = 0;  // the second in the colour of the arms
};

/// A disk with arms at the deprojected position (x, y): log spirals, phi = phase + ln(r / start) /
/// tan(pitch).
Light disk_light(const Profile& p, double x, double y, const PatchNoise& patches) {
  double r = radius(x, y), body = p.brightness * std::exp(-r / p.scale);
  if (p.arms == 0) return {body, 0};
  double turn = std::atan2(y, x) - p.phase - std::log(std::max(r, 1.0) / p.arm_start) / std::tan(p.pitch);
  double ridge = std::exp(3.0 * (std::cos(p.arms * turn) - 1));  // 1 on the ridge, narrow
  double begins = 1 / (1 + std::exp(-(r - p.arm_start) / (0.12 * p.arm_start + 0.5)));
  double patchy = 1 + p.clumps * patches(x, y);
  return {body * (1 - 0.4 * begins * std::min(1.0, p.arm_strength / 3)),
          body * p.arm_strength * begins * ridge * std::max(0.0, patchy)};
}

Light light_at(const Profile& p, double dx, double dy, const PatchNoise& patches) {
  double c = std::cos(p.angle), s = std::sin(p.angle);
  double x = c * dx + s * dy, y = -s * dx + c * dy;  // along and across the long axis
  switch (p.kind) {
    case Profile::Kind::sersic: {
      double r = radius(x, y / p.q) / p.scale, b = 2 * p.n - 1.0 / 3;
      if (r > 10) return {};  // far below the noise
      return {p.brightness * std::exp(-b * (std::pow(r + 0.01, 1 / p.n) - 1)), 0};
    }
    case Profile::Kind::disk:
      return disk_light(p, x, y / p.q, patches);
    case Profile::Kind::edge_on: {
      double z = y / (p.q * p.scale), sech = 1 / std::cosh(std::min(std::abs(z), 20.0));
      double ends = 1 / (1 + std::exp((std::abs(x) - 3.2 * p.scale) / (0.25 * p.scale)));
      double lane = 1 - p.dust * std::exp(-8 * z * z) * std::exp(-std::abs(x) / (2.5 * p.scale));
      return {p.brightness * std::exp(-std::abs(x) / p.scale) * sech * sech * ends * lane, 0};
    }
    case Profile::Kind::bar: {
      double r =
          std::pow(std::pow(std::abs(x) / p.scale, 2.5) + std::pow(std::abs(y) / (p.q * p.scale), 2.5), 0.4);
      return {p.brightness / (1 + std::exp((r - 0.85) * 9)), 0};
    }
    case Profile::Kind::tail: {
      double r = radius(x, y), phi = std::atan2(y, x);
      if (phi < 0) phi += 2 * pi;
      double along = phi / p.sweep;  // 0 at its root, 1 at its tip
      if (along > 1.15 || r < 1) return {};
      double ridge = p.scale * (1 + 1.3 * along * along), off = (r - ridge) / (p.width * (1 + 0.8 * along));
      double fade = std::clamp((1.15 - along) / 0.5, 0.0, 1.0) * std::clamp(along / 0.08, 0.0, 1.0);
      return {p.brightness * std::exp(-0.5 * off * off) * fade, 0};
    }
  }
  return {};
}

/// Separable Gaussian blur of (size, size, 3), the edge repeated.
void blur(std::vector<float>& rgb, int size, double sigma) {
  int reach = std::max(1, static_cast<int>(std::ceil(3 * sigma)));
  std::vector<float> weight(2 * reach + 1);
  double total = 0;
  for (int k = -reach; k <= reach; ++k) total += weight[k + reach] = std::exp(-0.5 * k * k / (sigma * sigma));
  for (float& w : weight) w = static_cast<float>(w / total);
  std::vector<float> other(rgb.size());
  size_t line = static_cast<size_t>(size) * 3;
  for (int y = 0; y < size; ++y) {
    float* to = other.data() + y * line;
    for (int k = -reach; k <= reach; ++k) {
      const float* from = rgb.data() + std::clamp(y + k, 0, size - 1) * line;
      for (size_t i = 0; i < line; ++i) to[i] += weight[k + reach] * from[i];
    }
  }
  std::vector<float> padded((size + 2 * reach) * 3);
  for (int y = 0; y < size; ++y) {
    const float* from = other.data() + y * line;
    for (int x = -reach; x < size + reach; ++x)
      std::copy_n(from + std::clamp(x, 0, size - 1) * 3, 3, padded.data() + (x + reach) * 3);
    float* to = rgb.data() + y * line;
    std::fill(to, to + line, 0.0f);
    for (int k = 0; k <= 2 * reach; ++k)
      for (size_t i = 0; i < line; ++i) to[i] += weight[k] * padded[i + k * 3];
  }
}

/// One nearly normal draw from 32 bits: the sum of four uniform bytes, scaled to unit variance.
float normal(uint32_t bits) {
  int sum = static_cast<int>(bits & 255) + (bits >> 8 & 255) + (bits >> 16 & 255) + (bits >> 24);
  return (static_cast<float>(sum) - 510.0f) * (1.0f / 147.8f);
}

}  // namespace

Image render(const Scene& scene, int size) {
  const double px = kFrame / size;  // frame px per picture px
  PhiloxStream rng(scene.seed, RngUse::synth, 1000, scene.index);
  PatchNoise patches(rng, 5.0);
  double wave[6];
  for (double& w : wave) w = rng.uniform(0, 2 * pi);
  std::vector<float> rgb(static_cast<size_t>(size) * size * 3, 0.0f);
  for (int v = 0; v < size; ++v)
    for (int u = 0; u < size; ++u) {
      double x = (u + 0.5) * px - kFrame / 2, y = (v + 0.5) * px - kFrame / 2;
      if (scene.warp > 0) {
        double grow = std::min(1.0, radius(x, y) / 40);
        double wx = std::sin(0.055 * y + wave[0]) + 0.7 * std::sin(0.09 * x + 0.04 * y + wave[1]);
        double wy = std::sin(0.06 * x + wave[2]) + 0.7 * std::sin(0.08 * y - 0.05 * x + wave[3]);
        x += scene.warp * grow * wx, y += scene.warp * grow * wy;
      }
      float* out = rgb.data() + (static_cast<size_t>(v) * size + u) * 3;
      for (const Profile& p : scene.profiles) {
        Light light = light_at(p, x - p.x, y - p.y, patches);
        for (int c = 0; c < 3; ++c)
          out[c] += static_cast<float>(light.body * p.colour[c] + light.arms * p.arm_colour[c]);
      }
    }
  // A star's light falls on its four nearest pixels; the blur gives it its shape.
  for (const Star& star : scene.stars) {
    double x = (star.x + kFrame / 2) / px - 0.5, y = (star.y + kFrame / 2) / px - 0.5;
    for (int k = 0; k < 4; ++k) {
      int xi = static_cast<int>(std::floor(x)) + k % 2, yi = static_cast<int>(std::floor(y)) + k / 2;
      if (xi < 0 || yi < 0 || xi >= size || yi >= size) continue;
      double share = (1 - std::abs(x - xi)) * (1 - std::abs(y - yi)) * star.brightness / (px * px);
      for (int c = 0; c < 3; ++c)
        rgb[(static_cast<size_t>(yi) * size + xi) * 3 + c] += static_cast<float>(share * star.colour[c]);
    }
  }
  blur(rgb, size, std::max(0.35, scene.psf / px));

  const double white = 8;  // softening: linear below 1/8 of white, logarithmic above
  Image image{size, size, std::vector<uint8_t>(rgb.size())};
  for (size_t i = 0; i < rgb.size(); i += 3) {
    float flux[3], mean = 0;
    for (int c = 0; c < 3; ++c) {
      // Photon noise on top of the sky's: brighter pixels are noisier.
      float sigma = static_cast<float>(scene.noise) * std::sqrt(1 + 4 * rgb[i + c]);
      flux[c] = std::max(0.0f, rgb[i + c] + sigma * normal(rng.next()) + 0.012f);
      mean += flux[c] / 3;
    }
    float gain =
        mean > 1e-6f ? static_cast<float>(std::asinh(white * mean) / std::asinh(white)) / mean : 0.0f;
    float peak = std::max({flux[0], flux[1], flux[2]}) * gain, keep = peak > 1 ? 1 / peak : 1;
    for (int c = 0; c < 3; ++c)
      image.rgb[i + c] = static_cast<uint8_t>(std::lround(255 * std::min(1.0f, flux[c] * gain * keep)));
  }
  return image;
}

}  // namespace gm
