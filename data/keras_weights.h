// Weights in Keras's HDF5 formats.
#pragma once
#include <string>

#include "engine/safetensors.h"

namespace gm {

/// Reads a legacy .h5 (a group per layer with the attribute weight_names; whole models keep them under
/// model_weights) or a Keras 3 .weights.h5 (layers/<layer>/vars/0, 1, ...).
/// Tensors come out as "<layer>/<weight>", <weight> being the variable's name ("kernel") in the legacy format
/// and its number in Keras 3's. Layouts stay Keras's. Optimizer variables are left out. Throws gm::Error (one
/// line, naming file and tensor) for files that are missing, truncated, of another kind or name one layer's
/// weight twice.
TensorFile read_keras_weights(const std::string& path);

}  // namespace gm
