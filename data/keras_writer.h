// Weights as Keras's load_weights takes them.
#pragma once
#include <string>
#include <vector>

#include "engine/safetensors.h"

namespace gm {

/// Writes the legacy format of both versions of Keras: a group per layer, and lists of layers and of their
/// weights, which load_weights takes in the order of the model's own unless by_name=True. `weights` has
/// "<layer>/<weight>" in Keras's layouts, as read_keras_weights returns them; `order` are its names in the
/// order of the network, those of a layer next to each other. Metadata, whose keys must begin with
/// kOwnAttributes for read_keras_weights to return them, become attributes of the file. The file appears
/// whole or not at all. Throws gm::Error naming it when it cannot be written.
void write_keras_weights(const std::string& path, const TensorFile& weights,
                         const std::vector<std::string>& order);

}  // namespace gm
