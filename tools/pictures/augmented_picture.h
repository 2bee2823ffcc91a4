// What augmentation makes of images, as pictures.
#pragma once
#include <span>

#include "data/loader.h"

namespace gm {

/// The image as the network gets it, in 8 bits and at the side of the transform.
Image augmented_image(const Transform& transform, const Image& image, uint64_t seed, uint32_t epoch,
                      uint32_t row);

/// Those rows as that epoch of training sees them, eight abreast, at most 128 px each. Throws what
/// Dataset::read throws.
Image augmented_sheet(const Transform& training, ImageCache& images, std::span<const int64_t> rows,
                      uint64_t seed, uint32_t epoch);

}  // namespace gm
