#include "data/transform.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/common/error.h"
#include "kernels/common/philox.h"

namespace gm {
namespace {

constexpr double kDegree = std::numbers::pi / 180;

/// Output position -> source position: centre, shift back, flip, then Keras's rotation * shear * zoom over
/// (x, y), then to source pixels about the image's centre. Keras swaps the axes of its matrices, so the first
/// one is x: x' = zx x - sin(shear) zy y, y' = cos(shear) zy y.
Affine place(const AugmentDraw& d, int width, int height, int size, double ratio_x, double ratio_y) {
  const double c = std::cos(d.rotation), s = std::sin(d.rotation);
  const double shear_x = -std::sin(d.shear) * d.zoom_y, shear_y = std::cos(d.shear) * d.zoom_y;
  const double fx = d.flip_x ? -1 : 1, fy = d.flip_y ? -1 : 1;
  Affine m;
  m.xx = ratio_x * c * d.zoom_x * fx;
  m.xy = ratio_x * (c * shear_x + s * shear_y) * fy;
  m.yx = ratio_y * -s * d.zoom_x * fx;
  m.yy = ratio_y * (-s * shear_x + c * shear_y) * fy;
  const double u = size * 0.5 + d.shift_x, v = size * 0.5 + d.shift_y;
  m.x0 = width * 0.5 - m.xx * u - m.xy * v;
  m.y0 = height * 0.5 - m.yx * u - m.yy * v;
  return m;
}

/// Brightness, contrast, saturation and hue in this order: all linear, hence one 3x3 matrix and a share of
/// the mean grey.
void set_colour(const ColourDraw& d, AugmentSample& sample) {
  const double grey[3] = {0.299, 0.587, 0.114};
  // The quarter turn of the chroma plane (I -> -Q, Q -> I of YIQ) written over RGB.
  const double in_i[3] = {0.596, -0.274, -0.322}, in_q[3] = {0.211, -0.523, 0.312};
  const double out_i[3] = {0.956, -0.272, -1.106}, out_q[3] = {0.621, -0.647, 1.703};
  double cos_hue = std::cos(d.hue), sin_hue = std::sin(d.hue), scale = d.brightness * d.contrast;
  // Grey is what neither saturation nor hue changes; only the rest, x - grey(x), is scaled and turned.
  for (int r = 0; r < 3; ++r)
    for (int c = 0; c < 3; ++c) {
      double chroma = cos_hue * ((r == c) - grey[c]) + sin_hue * (out_q[r] * in_i[c] - out_i[r] * in_q[c]);
      sample.colour[r * 3 + c] = static_cast<float>(scale * (grey[c] + d.saturation * chroma));
    }
  sample.grey_share = (1 - d.contrast) * d.brightness;
  sample.recolour = 1;
}

/// One operation of RandAugment on top of a draw. strength: magnitude / 30.
void add_random_op(AugmentDraw& d, PhiloxStream& rng, double strength, int size) {
  const uint32_t op = rng.below(8);
  const double signed_strength = rng.uniform() < 0.5 ? -strength : strength;
  const double factor = 1 + 0.9 * signed_strength;
  const int shift = static_cast<int>(std::lround(150.0 / 331 * size * signed_strength));
  switch (op) {
    case 0:
      break;
    case 1:
      d.rotation += 30 * kDegree * signed_strength;
      break;
    case 2:
      d.shear += 0.3 * signed_strength;
      break;
    case 3:
      d.shift_x += shift;
      break;
    case 4:
      d.shift_y += shift;
      break;
    case 5:
      d.colour.brightness *= factor;
      break;
    case 6:
      d.colour.contrast *= factor;
      break;
    default:
      d.colour.saturation *= factor;
  }
}

}  // namespace

TransformConfig TransformConfig::none(int size) {
  TransformConfig c;
  c.size = size;
  return c;
}

TransformConfig TransformConfig::gz(int size) {
  TransformConfig c = none(size);
  c.rotation_deg = 180;
  c.flip_x = c.flip_y = true;
  c.crop_min = 160;
  c.crop_max = 240;
  c.crop_eval = 200;
  c.colour = {.brightness = 0.2, .contrast = 0.2, .saturation = 0.2, .hue = 0.02};
  c.shift_px = 3;
  c.fill = Border::reflect;
  return c;
}

TransformConfig TransformConfig::keras(int size) {
  TransformConfig c = none(size);
  c.rotation_deg = 20;
  c.shear_deg = 0.3;
  c.zoom_min = 0.7;
  c.zoom_max = 1.3;
  c.flip_x = c.flip_y = true;
  return c;
}

bool TransformConfig::random() const {
  return rotation_deg > 0 || shear_deg > 0 || zoom_min != 1 || zoom_max != 1 || flip_x || flip_y ||
         crop_max > 0 || colour != ColourRanges{} || shift_px > 0 || random_ops > 0;
}

void TransformConfig::validate() const {
  auto need = [](bool ok, const char* key, double least, double most) {
    if (!ok) fail(fmt::format("augment.{} is out of range [{}, {}]", key, least, most));
  };
  need(size >= 4 && size <= 4096, "size", 4, 4096);
  each_number(*this, [&](const char* key, double value, double least, double most) {
    need(value >= least && value <= most, key, least, most);
  });
  each_range(*this, [&](const char* key, double first, double second, double least, double most) {
    need(first >= least && first <= second && second <= most, key, least, most);
  });
}

Transform::Transform(const TransformConfig& config, bool training) : config_(config), training_(training) {
  config_.validate();
}

AugmentDraw Transform::draw(uint64_t seed, uint32_t epoch, uint32_t row) const {
  const TransformConfig& c = config_;
  AugmentDraw d;
  d.crop = c.crop_eval;
  if (!random()) return d;
  PhiloxStream rng(seed, RngUse::augment, epoch, row);
  d.rotation = kDegree * rng.uniform(-c.rotation_deg, c.rotation_deg);
  d.shear = kDegree * rng.uniform(-c.shear_deg, c.shear_deg);
  d.zoom_y = rng.uniform(c.zoom_min, c.zoom_max);
  d.zoom_x = rng.uniform(c.zoom_min, c.zoom_max);
  d.flip_x = rng.uniform() < 0.5 && c.flip_x;
  d.flip_y = rng.uniform() < 0.5 && c.flip_y;
  d.crop = rng.uniform(c.crop_min, c.crop_max);
  d.colour.brightness = rng.uniform(1 - c.colour.brightness, 1 + c.colour.brightness);
  d.colour.contrast = rng.uniform(1 - c.colour.contrast, 1 + c.colour.contrast);
  d.colour.saturation = rng.uniform(1 - c.colour.saturation, 1 + c.colour.saturation);
  d.colour.hue = 2 * std::numbers::pi * rng.uniform(-c.colour.hue, c.colour.hue);
  d.shift_x = static_cast<int>(rng.below(2 * c.shift_px + 1)) - c.shift_px;
  d.shift_y = static_cast<int>(rng.below(2 * c.shift_px + 1)) - c.shift_px;
  for (int i = 0; i < c.random_ops; ++i) add_random_op(d, rng, c.magnitude / 30, c.size);
  return d;
}

AugmentSample Transform::sample(int width, int height, uint64_t seed, uint32_t epoch, uint32_t row) const {
  const int size = config_.size;
  if (!random() && width == size && height == size)
    return place_sample(width, height, Affine{}, 1, 1, config_.fill, size);
  const AugmentSample drawn = sample(width, height, draw(seed, epoch, row));
  // A card's kernel has no colour pass where recolours() is false and would drop the step without a word.
  GM_CHECK(!drawn.recolour || recolours(), "augment: a colour step whose range is not in ColourRanges");
  return drawn;
}

AugmentSample Transform::sample(int width, int height, const AugmentDraw& d) const {
  const int size = config_.size;
  double ratio_x = static_cast<double>(width) / size, ratio_y = static_cast<double>(height) / size;
  if (d.crop > 0) {
    double shrink = std::min(1.0, std::min(width, height) / TransformConfig::kCropReference);
    ratio_x = ratio_y = d.crop * shrink / size;
  }
  AugmentSample sample = place_sample(width, height, place(d, width, height, size, ratio_x, ratio_y), ratio_x,
                                      ratio_y, config_.fill, size);
  if (d.colour != ColourDraw{}) set_colour(d.colour, sample);
  return sample;
}

bool Transform::recolours() const {
  return random() && (config_.random_ops > 0 || config_.colour != ColourRanges{});
}

void Transform::apply(const Image& image, uint64_t seed, uint32_t epoch, uint32_t row, float* out) const {
  if (!random() && image.width == config_.size && image.height == config_.size)
    std::copy(image.rgb.begin(), image.rgb.end(), out);
  else
    augment_image(image, sample(image.width, image.height, seed, epoch, row), config_.size, out);
}

void Transform::apply(const Image& image, const AugmentDraw& draw, float* out) const {
  augment_image(image, sample(image.width, image.height, draw), config_.size, out);
}

Image resize_image(const Image& image, int size) {
  std::vector<float> pixels(static_cast<size_t>(size) * size * 3);
  Transform(TransformConfig::none(size), false).apply(image, 0, 0, 0, pixels.data());
  Image resized{size, size, std::vector<uint8_t>(pixels.size())};
  for (size_t i = 0; i < pixels.size(); ++i) resized.rgb[i] = static_cast<uint8_t>(std::lround(pixels[i]));
  return resized;
}

}  // namespace gm
