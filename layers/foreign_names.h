// How other frameworks name the layers of an EfficientNet.
#pragma once
#include "layers/import.h"

namespace gm {

/// Keras numbers layers that were not given a name: conv2d, conv2d_1, ..., dense, dense_1. Where a file has
/// as many of a class as the network has layers without a tensor of their own name, they are the same layers
/// in the same order, and get our names.
void name_by_order(TensorFile& source, const ParameterTable& table);

}  // namespace gm
