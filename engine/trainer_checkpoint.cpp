// What a run can be continued from.
#include <algorithm>
#include <cmath>

#include "engine/safetensors.h"
#include "engine/trainer.h"
#include "engine/weight_file.h"

namespace gm {

void Trainer::save(const std::string& name, bool full) {
  // A loss is known one step before what its update made of the weights: this is the first look at those.
  auto source = [this](const View& v) {
    return TensorSource{
        v.spec, [this, v](char* to, size_t offset, size_t bytes) {
          device_.download(to, static_cast<const char*>(v.data) + offset, bytes);
          const float* values = reinterpret_cast<const float*>(to);
          if (!std::all_of(values, values + bytes / sizeof(float), [](float x) { return std::isfinite(x); }))
            fail("the weights or the optimizer's moments are not finite after step " +
                 std::to_string(state_.step) +
                 ": lower optimizer.lr; the last checkpoint before that is kept");
        }};
  };
  std::map<std::string, TensorSource> tensors;
  // Under their names the parameters as they are evaluated: their average where there is one.
  optimizer_.with_average([&] {
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
    tensors["optimizer/moment1"] = flat(optimizer_.moment1());
    if (optimizer_.moment2().bytes()) tensors["optimizer/moment2"] = flat(optimizer_.moment2());
    if (optimizer_.average().bytes()) tensors["optimizer/parameters"] = flat(weights_.master());
    metadata["batch"] = std::to_string(state_.batch);
    metadata["loss_sum"] = exact_text(state_.loss_sum);
    metadata["correct"] = exact_text(state_.correct);
    metadata["samples"] = exact_text(state_.samples);
    metadata["best_loss"] = exact_text(state_.best_loss);
    metadata["best_accuracy"] = exact_text(state_.best_accuracy);
    metadata["best_epoch"] = std::to_string(state_.best_epoch);
    metadata["epochs_without_gain"] = std::to_string(state_.epochs_without_gain);
    metadata["seed"] = std::to_string(config_.seed);
  }
  write_safetensors(config_.out_dir + "/" + name, metadata, tensors);
}

void Trainer::resume() {
  const std::string path = config_.out_dir + "/last.safetensors";
  TensorReader file(path);
  // All checks come first: a wrong file changes nothing.
  for (const Parameter& p : table_) check_shape(path, p, file.shape(p.name));
  std::map<std::string, Buffer*> flat{{"optimizer/moment1", &optimizer_.moment1()}};
  if (optimizer_.moment2().bytes()) flat["optimizer/moment2"] = &optimizer_.moment2();
  // Whether or not the average goes on, what the optimizer works on is the parameters themselves.
  if (file.has("optimizer/parameters")) flat["optimizer/parameters"] = &weights_.master();
  for (const auto& [name, buffer] : flat)
    if (static_cast<size_t>(file.shape(name).numel()) * sizeof(float) != buffer->bytes())
      fail(path + ": '" + name + "' is of another model");
  const Metadata kept(path, file.metadata(), "not a full checkpoint");
  const State state{.step = kept.integer("step"),
                    .epoch = kept.integer("epoch"),
                    .batch = kept.integer("batch"),
                    .loss_sum = kept.number("loss_sum"),
                    .correct = kept.number("correct"),
                    .samples = kept.number("samples"),
                    .best_loss = kept.number("best_loss"),
                    .best_accuracy = kept.number("best_accuracy"),
                    .best_epoch = kept.integer("best_epoch", -1),
                    .epochs_without_gain = kept.integer("epochs_without_gain")};
  if (kept.text("seed") != std::to_string(config_.seed))
    fail(path + ": was trained with --seed " + kept.text("seed") + ", not " + std::to_string(config_.seed));

  load_weights(file, table_, weights_);
  optimizer_.start_average();  // what the file has under the parameters' names
  for (const auto& [name, buffer] : flat) {
    auto values = file.read(name).floats();
    // Parameters that were frozen only now must not coast on.
    if (buffer != &weights_.master())
      for (const Parameter& p : table_)
        if (p.frozen) std::fill_n(values.begin() + p.offset, p.shape.numel(), 0.f);
    buffer->upload(values);
  }
  weights_.refresh_bf16();
  state_ = state;
}

}  // namespace gm
