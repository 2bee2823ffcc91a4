// What a run can be continued from, and weights alone.
#include <cstdio>

#include "engine/safetensors.h"
#include "engine/trainer.h"

namespace gm {

namespace {

// Doubles survive the round trip through text, so a resumed run is bit-exact.
std::string exact(double v) {
  char text[40];
  std::snprintf(text, sizeof text, "%.17g", v);
  return text;
}

}  // namespace

void Trainer::save(const std::string& name, bool full) const {
  auto source = [this](const View& v) {
    return TensorSource{v.spec, [this, v](char* to, size_t offset, size_t bytes) {
                          device_.download(to, static_cast<const char*>(v.data) + offset, bytes);
                        }};
  };
  std::map<std::string, TensorSource> tensors;
  // Under their names the parameters as they are evaluated: their average where there is one.
  auto& self = const_cast<Trainer&>(*this);
  self.optimizer_.with_average([&] {
    for (const Parameter& p : table_) tensors[p.name] = source(weights_.value(p, DType::f32));
  });
  auto metadata = config_.metadata;
  metadata["format"] = "galaxy-morphology/1";
  metadata["step"] = std::to_string(state_.step);
  metadata["epoch"] = std::to_string(state_.epoch);
  if (full) {
    auto flat = [&](const Buffer& b) {
      return source(b.view(0, {Shape{static_cast<int64_t>(b.bytes() / sizeof(float))}, DType::f32}));
    };
    tensors["optimizer/moment1"] = flat(self.optimizer_.moment1());
    if (self.optimizer_.moment2().bytes()) tensors["optimizer/moment2"] = flat(self.optimizer_.moment2());
    if (self.optimizer_.average().bytes()) tensors["optimizer/parameters"] = flat(weights_.master());
    metadata["batch"] = std::to_string(state_.batch);
    metadata["loss_sum"] = exact(state_.loss_sum);
    metadata["correct"] = exact(state_.correct);
    metadata["samples"] = exact(state_.samples);
    metadata["best_loss"] = exact(state_.best_loss);
    metadata["best_accuracy"] = exact(state_.best_accuracy);
    metadata["best_epoch"] = std::to_string(state_.best_epoch);
    metadata["epochs_without_gain"] = std::to_string(state_.epochs_without_gain);
    metadata["seed"] = std::to_string(config_.seed);
  }
  write_safetensors(config_.out_dir + "/" + name, metadata, tensors);
}

void Trainer::resume() {
  const std::string path = config_.out_dir + "/last.safetensors";
  TensorReader file(path);
  load_weights(file, table_, weights_);
  auto text = [&](const char* key) {
    auto it = file.metadata().find(key);
    if (it == file.metadata().end())
      fail(path + ": not a full checkpoint ('" + key + "' is missing); cannot resume");
    return it->second;
  };
  auto flat = [&](const char* name, const Buffer& buffer) {
    auto values = file.read(name).floats();
    if (values.size() * sizeof(float) != buffer.bytes()) fail(path + ": '" + name + "' is of another model");
    return values;
  };
  auto moment = [&](const char* name, Buffer& buffer) {
    auto values = flat(name, buffer);
    // Parameters that were frozen only now must not coast on.
    for (const Parameter& p : table_)
      if (p.frozen) std::fill_n(values.begin() + p.offset, p.shape.numel(), 0.f);
    buffer.upload(values);
  };
  moment("optimizer/moment1", optimizer_.moment1());
  if (optimizer_.moment2().bytes()) moment("optimizer/moment2", optimizer_.moment2());
  optimizer_.start_average();  // what the file has under the parameters' names
  if (optimizer_.average().bytes()) {
    weights_.master().upload(flat("optimizer/parameters", weights_.master()));
    weights_.refresh_half();
  }
  if (text("seed") != std::to_string(config_.seed))
    fail(path + ": was trained with --seed " + text("seed") + ", not " + std::to_string(config_.seed));
  state_.step = std::stoll(text("step"));
  state_.epoch = std::stoll(text("epoch"));
  state_.batch = std::stoll(text("batch"));
  state_.loss_sum = std::stod(text("loss_sum"));
  state_.correct = std::stod(text("correct"));
  state_.samples = std::stod(text("samples"));
  state_.best_loss = std::stod(text("best_loss"));
  state_.best_accuracy = std::stod(text("best_accuracy"));
  state_.best_epoch = std::stoll(text("best_epoch"));
  state_.epochs_without_gain = std::stoll(text("epochs_without_gain"));
}

namespace {
// All checks come first: a wrong file changes nothing.
void check_shape(const std::string& path, const Parameter& p, const Shape& shape) {
  if (!(shape == p.shape))
    fail(path + ": tensor '" + p.name + "' has shape " + shape.str() + ", the model needs " + p.shape.str());
}
}  // namespace

void load_weights(const TensorFile& file, const ParameterTable& table, Weights& weights) {
  for (const Parameter& p : table) check_shape(file.path, p, file.at(p.name).spec.shape);
  for (const Parameter& p : table) weights.upload(p, file.at(p.name).floats());
  weights.refresh_half();
}

void load_weights(TensorReader& file, const ParameterTable& table, Weights& weights) {
  for (const Parameter& p : table) check_shape(file.path(), p, file.shape(p.name));
  for (const Parameter& p : table) weights.upload(p, file.read(p.name).floats());
  weights.refresh_half();
}

TensorFile store_weights(const ParameterTable& table, const Weights& weights) {
  TensorFile file;
  for (const Parameter& p : table) file.tensors[p.name] = StoredTensor::of(p.shape, weights.download(p));
  return file;
}

}  // namespace gm
