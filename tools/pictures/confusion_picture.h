// A confusion matrix as a picture.
#pragma once
#include <string>
#include <vector>

#include "data/image.h"
#include "engine/metrics.h"

namespace gm {

/// Rows are true classes, columns predicted ones; a cell shows its count, its share of the row in percent and
/// that share as a shade of blue. With more than 24 classes the percentages go, with more than 64 all text
/// in and beside the cells.
Image confusion_picture(const ConfusionMatrix& confusion, const std::vector<std::string>& classes);

}  // namespace gm
