// Weights in Keras's HDF5 formats.
#pragma once
#include <string>

#include "engine/safetensors.h"

namespace gm {

/// Metadata of a file that holds a whole model: its configuration, as JSON.
inline constexpr const char* kKerasConfig = "model_config";
/// Metadata of a file without one: names of layers that scale pixels and are none of a backbone's own.
inline constexpr const char* kKerasScalers = "scaling_layers";
/// Metadata that are attributes of the file and none of Keras's: their keys begin with this.
inline constexpr const char* kOwnAttributes = "gm_";
/// Models and layers inside each other, at most.
inline constexpr int kKerasDepth = 32;

/// Reads a legacy .h5 (a group per layer with the attribute weight_names; whole models keep them under
/// model_weights), a .weights.h5 (layers/<layer>/vars/0, 1, ...) or a .keras (an archive of one and its
/// configuration).
/// Tensors come out as "<layer>/<weight>", <weight> being the variable's name ("kernel") in the legacy format
/// and its number in the others. Layouts stay Keras's. <layer> is the layer's name where the file has it;
/// .weights.h5 of Keras before 3.6 has class and number only, anew in each model inside another. Layers
/// of one class of which two would have one name are numbered anew through the whole file, in the order of
/// the network as far as the file tells: in a .weights.h5 those of inner models come first. Other layers of
/// one name have the models around them before it, "cbam.fc1". Optimizer variables, metrics and states of
/// generators are left out. Metadata are those above. Throws gm::Error (one line, naming file and tensor) for
/// files that are missing, truncated, of another kind or name one layer's weight twice.
TensorFile read_keras_weights(const std::string& path);

}  // namespace gm
