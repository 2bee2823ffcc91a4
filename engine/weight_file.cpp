#include "engine/weight_file.h"

namespace gm {

void check_shape(const std::string& path, const Parameter& p, const Shape& shape) {
  if (!(shape == p.shape))
    fail(path + ": tensor '" + p.name + "' has shape " + shape.str() + ", the model needs " + p.shape.str());
}

void load_weights(const TensorFile& file, const ParameterTable& table, Weights& weights) {
  for (const Parameter& p : table) check_shape(file.path, p, file.at(p.name).spec.shape);
  for (const Parameter& p : table) weights.upload(p, file.at(p.name).floats());
  weights.refresh_bf16();
}

void load_weights(TensorReader& file, const ParameterTable& table, Weights& weights) {
  for (const Parameter& p : table) check_shape(file.path(), p, file.shape(p.name));
  for (const Parameter& p : table) weights.upload(p, file.read(p.name).floats());
  weights.refresh_bf16();
}

}  // namespace gm
