#include "tools/model_file.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "data/dataset.h"
#include "engine/device_feed.h"
#include "engine/image_pool.h"
#include "engine/session.h"
#include "engine/weight_file.h"
#include "layers/import.h"
#include "tools/run_config.h"

namespace gm {

namespace fs = std::filesystem;

ModelFile read_model(const std::string& path) {
  ModelFile m;
  m.path = path;
  std::error_code none;
  if (fs::is_directory(path, none)) {
    m.path = path + "/best.safetensors";
    if (!fs::exists(m.path)) m.path = path + "/last.safetensors";
    if (!fs::exists(m.path)) fail(path + ": holds neither best.safetensors nor last.safetensors");
  }
  TensorReader reader(m.path);
  m.tensors.path = m.path;
  m.tensors.metadata = reader.metadata();
  auto text = m.tensors.metadata.find("model");
  if (text == m.tensors.metadata.end())
    fail(m.path + ": carries no model description; use gm_model import for weights made elsewhere");
  const YAML::Node config = parse_yaml(text->second, m.path + " (model description)");
  if (!config.IsMap()) fail(m.path + ": its model description is not a mapping");
  YAML::Node only_model;
  for (const char* section : {"model", "input"})
    if (config[section]) only_model[section] = config[section];
  m.architecture = read_architecture(only_model, m.path);
  m.transform = read_transform(config, m.path, m.architecture.input_size);
  for (const std::string& name : reader.names())
    if (!name.starts_with("optimizer/")) {
      StoredTensor& tensor = m.tensors.tensors[name] = reader.read(name);
      if (tensor.spec.dtype != DType::f32 && tensor.spec.dtype != DType::bf16)
        fail(m.path + ": tensor '" + name + "' is of type " + dtype_name(tensor.spec.dtype) +
             ", not a floating-point one");
    }
  return m;
}

void adopt_model_conventions(YAML::Node config, const Architecture& from,
                             const std::vector<std::string>& sets) {
  YAML::Node model = config["model"], input = config["input"];
  if (!is_set(sets, "model.padding")) model["padding"] = from.same_padding ? "same" : "symmetric";
  if (!is_set(sets, "model.batch_norm.epsilon")) model["batch_norm"]["epsilon"] = from.bn_epsilon;
  if (!is_set(sets, "input.scaling")) {
    input["scaling"]["mean"] = from.mean;
    input["scaling"]["std"] = from.std;
  }
}

std::string start_from(const ModelFile& model, const std::vector<std::string>& classes,
                       const ParameterTable& table, Weights& weights) {
  const auto& tensors = model.tensors.tensors;
  const std::vector<std::string>& known = model.architecture.class_names;
  const bool other = !only_numbered(known) && !only_numbered(classes) && known != classes;
  bool same_head = !other;
  for (const Parameter& p : table) {
    const auto it = tensors.find(p.name);
    if (it != tensors.end() && it->second.spec.shape == p.shape) continue;
    if (is_head(p.name))
      same_head = false;
    else
      fail(model.path + ": tensor '" + p.name + "' " +
           (it == tensors.end()
                ? "is missing"
                : "has shape " + it->second.spec.shape.str() + ", the model needs " + p.shape.str()));
  }
  for (const Parameter& p : table)
    if (same_head || !is_head(p.name)) weights.upload(p, tensors.at(p.name).floats());
  weights.refresh_bf16();
  if (same_head) return "starting from " + model.path;
  return "starting from " + model.path + " (" + std::to_string(model.architecture.classes) +
         " classes); the head is new: " + std::to_string(table[table.find("predictions/bias")].shape[0]) +
         (other ? " classes of other names or in another order" : " classes");
}

std::map<std::string, std::string> model_metadata(const Architecture& a, const YAML::Node& augment) {
  YAML::Node root = parse_yaml(architecture_yaml(a), "architecture");
  if (augment) root["augment"] = augment;
  return {{"model", yaml_text(root)}};
}

Predictor::Predictor(Device& device, const ModelFile& model, int64_t batch, const PredictorOptions& o)
    : batch_(batch), architecture_(model.architecture) {
  ParameterTable table;
  if (o.sampling && architecture_.dropout <= 0 &&
      (architecture_.hidden.units == 0 || architecture_.hidden.dropout <= 0))
    fail(model.path + ": the network has no dropout to sample (model.dropout is 0)");
  const BuildOptions options{.batch = batch,
                             .sampling = o.sampling,
                             .dtype = o.bf16 ? DType::bf16 : DType::f32,
                             .augmented = o.images,
                             .loss = false};
  const NetworkGraph plain = build_network(architecture_, table, options);
  Weights original(device, table, false, false);
  load_weights(model.tensors, table, original);
  folded_ = std::make_unique<FoldedNetwork>(plain, Fusions{}, device.backend());
  weights_ = std::make_unique<Weights>(device, folded_->table, o.bf16, false);
  folded_->refresh(table, original, *weights_);
  pixels_ = folded_->net.pixels;
  output_ = folded_->net.logits;
  PlanOptions plan{.keep = {output_}};
  const auto& nodes = folded_->net.graph.nodes();
  const auto sampled = std::find_if(nodes.begin(), nodes.end(),
                                    [](const Node& n) { return n.op->name == std::string("dropout"); });
  if (sampled != nodes.end()) plan.keep.push_back(sampled->in[0]);
  session_ = std::make_unique<Session>(device, folded_->net.graph, *weights_, plan, o.seed);
  forward_ = std::make_unique<RepeatedWork>(device, [this] { session_->forward(); });
  if (o.images) {
    images_ = std::make_unique<ImagePool>(device);
    feed_ = std::make_unique<DeviceFeed>(
        device, *session_, *images_,
        DeviceFeed::Config{.pixels = pixels_,
                           .augment = folded_->net.augment.set("colour", 0),
                           .results = {output_},
                           .work = {[this](const View&) { session_->forward(); }}});
  }
  if (sampled == nodes.end()) return;
  const auto& steps = session_->plan().steps;
  while (steps[first_sampled_].node != sampled - nodes.begin()) ++first_sampled_;
}

const std::vector<float>& Predictor::logits(const std::vector<float>& pixels) {
  session_->upload(pixels_, pixels.data());
  forward_->run();
  logits_ = session_->download(output_);
  return logits_;
}

const std::vector<float>& Predictor::sample_logits(int64_t sample) {
  session_->set_step(static_cast<uint64_t>(sample));
  session_->run(first_sampled_, session_->plan().steps.size());
  logits_ = session_->download(output_);
  return logits_;
}

std::vector<double> softmax(const float* logits, int classes) {
  const double top = *std::max_element(logits, logits + classes);
  std::vector<double> p(classes);
  double sum = 0;
  for (int c = 0; c < classes; ++c) sum += p[c] = std::exp(static_cast<double>(logits[c]) - top);
  for (double& v : p) v /= sum;
  return p;
}

}  // namespace gm
