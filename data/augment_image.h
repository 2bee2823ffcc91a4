// The op `augment` for one image on the CPU, without a graph: what the loader's threads call.
#pragma once
#include "data/image.h"
#include "kernels/augment/augment.h"

namespace gm {

/// The sample as the op `augment` computes it on the CPU: fills out (size, size, 3), 0..255 (H, W, C). The
/// same bits on every machine.
void augment_image(const Image& image, const AugmentSample& sample, int size, float* out);

}  // namespace gm
