// Parameters and running statistics from a weight file.
#pragma once
#include <string>

#include "engine/parameters.h"
#include "engine/safetensors.h"

namespace gm {

/// Throws gm::Error naming file and tensor where a tensor of the file has another shape than the parameter.
void check_shape(const std::string& path, const Parameter& p, const Shape& shape);

/// Every parameter of the table from the file; throws gm::Error naming file and tensor, with nothing changed,
/// when one is missing or has another shape.
void load_weights(const TensorFile& file, const ParameterTable& table, Weights& weights);
/// The same without a second copy of the network in memory.
void load_weights(TensorReader& file, const ParameterTable& table, Weights& weights);

}  // namespace gm
