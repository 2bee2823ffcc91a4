// From a decoded image to the network's input: the augmentations of both papers, one affine and one colour
// pass.
#pragma once
#include <cstdint>

#include "data/augment_image.h"

namespace gm {

/// Ranges of the colour steps. Factors uniform in [1-x, 1+x]; brightness multiplies, contrast blends with the
/// mean grey, saturation with each pixel's grey (Rec. 601), as torchvision's ColorJitter; hue turns the
/// colour about the grey axis (YIQ) by a uniform share of a full turn in [-hue, hue]. The result is clamped
/// to 0..255.
struct ColourRanges {
  double brightness = 0, contrast = 0, saturation = 0, hue = 0;
  bool operator==(const ColourRanges&) const = default;
};

/// Every range of the augmentation; a preset per paper. Angles in degrees, factors without unit.
/// In training the steps are drawn, in order, from PhiloxStream(seed, augment, epoch, row); all draws are
/// always made, so that switching one step off leaves the others as they were.
struct TransformConfig {
  int size = 64;  ///< side of the square output, px

  double rotation_deg = 0;            ///< uniform in [-r, r]; 180 is every direction
  double shear_deg = 0;               ///< uniform in [-s, s], as Keras reads it
  double zoom_min = 1, zoom_max = 1;  ///< x and y independently; above 1 shows more of the image, as in Keras
  bool flip_x = false, flip_y = false;  ///< each with p = 0.5 where true

  /// Side of the centre crop in px of the original scale, drawn uniformly in training and fixed in
  /// evaluation; 0: the whole image, stretched to a square. The scale is that of the kCropReference-px
  /// centre of a Galaxy Zoo picture: in an image whose shorter side is below it, crops shrink in proportion.
  double crop_min = 0, crop_max = 0, crop_eval = 0;
  static constexpr double kCropReference = 264;

  ColourRanges colour;

  int shift_px = 0;  ///< whole px of the output, x and y independently uniform in {-s .. s}
  Border fill = Border::edge;

  /// RandAugment (Cubuk et al. 2020): so many operations more, each drawn uniformly and with replacement from
  /// eight: none, rotation by 30 degrees, shear by 0.3 radians (Keras's), shift in x or in y by 150 of 331
  /// parts of the output, brightness, contrast and saturation by factors 1 +- 0.9. These are the values at
  /// magnitude 30; below they shrink in proportion, and signs are drawn. The operations join the steps above
  /// in their order: angles and shifts add up, factors multiply. Posterize, solarize, equalize, autocontrast
  /// and sharpness, which make other galaxies of galaxies, are left out.
  int random_ops = 0;
  double magnitude = 9;

  /// Resize only: the whole image, stretched.
  static TransformConfig none(int size);
  /// S2 (section 3.2): rotation 0-360, flips, centre crop S in [160, 240], colour, area downscale, shift 0-3
  /// px. Evaluation: centre 200. The shift moves the window over the image instead of the finished picture,
  /// so what comes in at the border is sky. Outside the image: mirrored, because stretched edge pixels look
  /// like bars.
  static TransformConfig gz(int size);
  /// S1 (Keras ImageDataGenerator): rotation 20, shear 0.3, zoom [.7, 1.3], fill nearest, flips after the
  /// affine, bilinear, about the centre; all at the size of the network, to which the whole image is resized.
  static TransformConfig keras(int size);

  /// Every number that a configuration may set, under its key and with its bounds: number(key, setting,
  /// least, most). Who reads a configuration and validate() both go by this list and the next.
  template <class Config, class F>
  static void each_number(Config& c, F&& number) {
    number("rotation_deg", c.rotation_deg, 0, 180);
    number("shear_deg", c.shear_deg, 0, 80);
    number("crop_eval", c.crop_eval, 0, 4096);
    number("brightness", c.colour.brightness, 0, 1);
    number("contrast", c.colour.contrast, 0, 1);
    number("saturation", c.colour.saturation, 0, 1);
    number("hue", c.colour.hue, 0, 0.5);
    number("shift_px", c.shift_px, 0, c.size - 1);
    number("random_ops", c.random_ops, 0, 4);
    number("magnitude", c.magnitude, 0, 30);
  }
  /// The same for settings of two numbers, which must be in order: range(key, first, second, least, most).
  template <class Config, class F>
  static void each_range(Config& c, F&& range) {
    range("zoom", c.zoom_min, c.zoom_max, 0.1, 4);
    range("crop", c.crop_min, c.crop_max, 0, 4096);
  }

  /// Whether training draws anything.
  bool random() const;
  /// Throws gm::Error naming the first setting out of range: for configurations that were not read from a
  /// file.
  void validate() const;
};

/// One draw of the colour steps; the defaults leave colours as they are.
struct ColourDraw {
  double brightness = 1, contrast = 1, saturation = 1;
  double hue = 0;  ///< radians about the grey axis
  bool operator==(const ColourDraw&) const = default;
};

/// One draw of every step; the defaults leave an image as it is.
struct AugmentDraw {
  double rotation = 0;  ///< radians; the picture turns clockwise by it (Keras's -theta)
  double shear = 0;     ///< radians
  double zoom_x = 1, zoom_y = 1;
  bool flip_x = false, flip_y = false;
  double crop = 0;  ///< px, see TransformConfig; 0: the whole image
  ColourDraw colour;
  int shift_x = 0, shift_y = 0;  ///< px of the output: the window moves over the image
};

/// Applies a configuration. Const and thread-safe.
class Transform {
 public:
  Transform(const TransformConfig& config, bool training);
  const TransformConfig& config() const { return config_; }
  /// Fills out (size, size, 3), 0..255. The result depends on the image and (seed, epoch, row) alone. In
  /// evaluation nothing is drawn, and an image that has the output's size is copied pixel for pixel.
  void apply(const Image& image, uint64_t seed, uint32_t epoch, uint32_t row, float* out) const;
  /// What training draws for a sample; in evaluation, and without augmentation, only the fixed crop.
  AugmentDraw draw(uint64_t seed, uint32_t epoch, uint32_t row) const;
  /// The image under one draw, always resampled.
  void apply(const Image& image, const AugmentDraw& draw, float* out) const;
  /// What the op `augment` needs to do the same to an image of that size, wherever it runs.
  AugmentSample sample(int width, int height, uint64_t seed, uint32_t epoch, uint32_t row) const;
  AugmentSample sample(int width, int height, const AugmentDraw& draw) const;
  /// False: no sample that is drawn changes colours, the op's attribute `colour` may be 0.
  bool recolours() const;

 private:
  bool random() const { return training_ && config_.random(); }
  TransformConfig config_;
  bool training_;
};

/// The image at width = height = size (area average or bilinear), rounded back to 8 bits.
Image resize_image(const Image& image, int size);

}  // namespace gm
