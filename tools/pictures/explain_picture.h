// Explanations as pictures: the galaxy beside its heat maps.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "data/attribution_file.h"

namespace gm {

/// One row of panels per image: the input, then each map that it has over the input in grey, under a line
/// that names image and classes. Each map has its own scale, printed below its panel: saliency from 0 to its
/// 99th percentile, Grad-CAM from 0 to its maximum. `layer`: of Grad-CAM, for its heading.
Image explain_picture(std::span<const Explanation> rows, const std::vector<std::string>& classes,
                      const std::string& layer);

/// A map (height, width) at (size, size): bilinear between the centres of its cells, constant beyond them.
std::vector<float> enlarge_map(const float* map, int height, int width, int size);

}  // namespace gm
