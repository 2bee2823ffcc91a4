// For the tests of augmentation: images of noise, what a transform makes of them, a look at every element.
#pragma once
#include <cmath>
#include <vector>

#include "data/transform.h"
#include "kernels/common/philox.h"

namespace gm::test {

inline Image noise(int width, int height, uint32_t seed = 1) {
  Image image{width, height, std::vector<uint8_t>(static_cast<size_t>(width) * height * 3)};
  PhiloxStream rng(seed, RngUse::sample);
  for (auto& v : image.rgb) v = static_cast<uint8_t>(rng.below(256));
  return image;
}

inline float at(const Image& image, int x, int y, int c) {
  return image.rgb[(static_cast<size_t>(y) * image.width + x) * 3 + c];
}

inline std::vector<float> transformed(const Image& image, const TransformConfig& config,
                                      bool training = false, uint64_t seed = 1, uint32_t epoch = 0,
                                      uint32_t row = 0) {
  std::vector<float> out(static_cast<size_t>(config.size) * config.size * 3, NAN);
  Transform(config, training).apply(image, seed, epoch, row, out.data());
  return out;
}

/// One resampling by hand, at the original scale.
inline std::vector<float> resampled(const Image& image, const Affine& affine, Border border, int size) {
  std::vector<float> out(static_cast<size_t>(size) * size * 3, NAN);
  augment_image(image, place_sample(image.width, image.height, affine, 1, 1, border, size), size, out.data());
  return out;
}

/// Calls check(x, y, c, value) on every element.
template <class F>
void each(const std::vector<float>& out, F&& check) {
  int size = static_cast<int>(std::lround(std::sqrt(out.size() / 3.0)));
  for (size_t i = 0; i < out.size(); ++i)
    check(static_cast<int>(i / 3) % size, static_cast<int>(i / 3) / size, static_cast<int>(i % 3), out[i]);
}

}  // namespace gm::test
