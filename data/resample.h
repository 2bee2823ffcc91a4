// One affine resampling of an image: every geometric step of an augmentation in a single pass.
#pragma once
#include "data/image.h"
#include "kernels/augment/augment.h"

namespace gm {

/// The sample as the op `augment` computes it on the CPU: fills out (size, size, 3), 0..255 (H, W, C). The
/// same bits on every machine.
void augment_image(const Image& image, const AugmentSample& sample, int size, float* out);

/// One affine resampling; see place_sample.
void resample(const Image& image, const Affine& affine, double ratio_x, double ratio_y, Border border,
              int size, float* out);

}  // namespace gm
