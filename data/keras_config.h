// What a saved Keras model says of itself beside its weights: config.json of a .keras, model_config of an
// .h5.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/safetensors.h"

namespace gm {

/// Keras's HDF5 format calls layers by class and number, anew in each model: "functional/conv2d_10". The name
/// of each of them, e.g. "block3b_expand_conv". Throws gm::Error, beginning with `path`, for text that is no
/// model.
std::map<std::string, std::string> keras_layer_names(const std::string& config, const std::string& path);

/// (x - mean) / std, per channel.
struct PixelScaling {
  std::vector<double> mean, std;
};

/// What the layers before the first convolution do to a pixel: Rescaling, Normalization and arithmetic with
/// constants (as preprocess_input leaves them); layers that act in training only, and that change sizes,
/// count as none. `weights` is what read_keras_weights returns; those of Normalization leave it. Nothing when
/// the file has no model beside its weights or no layer scales. Throws gm::Error for layers whose effect is
/// unknown, also for those of a file of weights only that are none of Keras's own networks'.
std::optional<PixelScaling> take_pixel_scaling(TensorFile& weights);

}  // namespace gm
