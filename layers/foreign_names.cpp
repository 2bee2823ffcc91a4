#include "layers/foreign_names.h"

#include <algorithm>
#include <map>
#include <set>

#include "kernels/common/error.h"

namespace gm {

namespace {

std::string layer_of(const std::string& parameter) { return parameter.substr(0, parameter.rfind('/')); }
std::string weight_of(const std::string& parameter) { return parameter.substr(parameter.rfind('/') + 1); }

enum class Kind { conv, depthwise, norm, dense, squeeze };

Kind kind_of(const Parameter& p) {
  if (weight_of(p.name) == "gamma" || weight_of(p.name) == "beta" || weight_of(p.name).starts_with("moving_"))
    return Kind::norm;
  const std::string layer = layer_of(p.name);
  // Squeeze-and-excitation is dense here and a pair of 1x1 convolutions elsewhere.
  if (layer.ends_with("se_reduce") || layer.ends_with("se_expand")) return Kind::squeeze;
  if (layer.ends_with("dwconv2")) return Kind::depthwise;
  return layer.ends_with("_conv") ? Kind::conv : Kind::dense;
}

// ---- Keras

const char* keras_class(Kind kind) {
  switch (kind) {
    case Kind::depthwise:
      return "depthwise_conv2d";
    case Kind::norm:
      return "batch_normalization";
    case Kind::dense:
      return "dense";
    default:
      return "conv2d";
  }
}

ForeignTensor keras_tensor(int index, const Parameter& p, Kind kind) {
  const std::string layer = layer_of(p.name), weight = weight_of(p.name);
  ForeignTensor t{index, {p.name}, {{0}}};
  // Keras 3 numbers a layer's variables in the order of their creation.
  static const std::map<std::string, const char*> order{{"kernel", "0"},      {"bias", "1"},
                                                        {"gamma", "0"},       {"beta", "1"},
                                                        {"moving_mean", "2"}, {"moving_variance", "3"}};
  t.names.push_back(layer + "/" + order.at(weight));
  if (weight != "kernel") return t;
  switch (kind) {
    case Kind::conv:
      t.orders = {{1, 2, 3, 0}};
      break;
    case Kind::depthwise:
      t.orders = {{0, 1, 2, -1}};
      t.names.push_back(layer + "/depthwise_kernel");  // Keras 2
      // EfficientNet's first version calls the layer dwconv.
      for (const char* kernel : {"/kernel", "/0", "/depthwise_kernel"})
        t.names.push_back(layer.substr(0, layer.size() - 1) + kernel);
      break;
    case Kind::squeeze:
      t.orders = {{-1, -1, 1, 0}, {1, 0}};
      break;
    default:
      t.orders = {{1, 0}};
  }
  return t;
}

// ---- PyTorch

// "block3b_" -> stage 3, layer 1
bool parse_block(const std::string& layer, int& stage, int& index, std::string& part) {
  if (!layer.starts_with("block")) return false;
  size_t at = 5;
  stage = 0;
  while (at < layer.size() && std::isdigit(static_cast<unsigned char>(layer[at])))
    stage = stage * 10 + (layer[at++] - '0');
  index = 0;
  while (at < layer.size() && std::islower(static_cast<unsigned char>(layer[at])))
    index = index * 26 + (layer[at++] - 'a' + 1);
  --index;
  part = layer.substr(std::min(layer.size(), at + 1));
  return true;
}

using Modules = std::map<std::string, std::string>;  // part of a block -> module

Modules timm_block(const StageSpec& s) {
  if (s.block == BlockType::fused_mbconv)
    return s.expand == 1 ? Modules{{"project_conv", "conv"}, {"project_bn", "bn1"}}
                         : Modules{{"expand_conv", "conv_exp"},     {"expand_bn", "bn1"},
                                   {"se_reduce", "se.conv_reduce"}, {"se_expand", "se.conv_expand"},
                                   {"project_conv", "conv_pwl"},    {"project_bn", "bn2"}};
  Modules m{{"dwconv2", "conv_dw"}, {"se_reduce", "se.conv_reduce"}, {"se_expand", "se.conv_expand"}};
  if (s.expand == 1)
    m.merge(Modules{{"bn", "bn1"}, {"project_conv", "conv_pw"}, {"project_bn", "bn2"}});
  else
    m.merge(Modules{{"expand_conv", "conv_pw"},
                    {"expand_bn", "bn1"},
                    {"bn", "bn2"},
                    {"project_conv", "conv_pwl"},
                    {"project_bn", "bn3"}});
  return m;
}

Modules torchvision_block(const StageSpec& s) {
  Modules m;
  int at = 0;
  auto conv_bn = [&](const char* conv, const char* bn) {
    const std::string n = "block." + std::to_string(at++);
    m[conv] = n + ".0";
    m[bn] = n + ".1";
  };
  if (s.expand != 1) conv_bn("expand_conv", "expand_bn");
  if (s.block == BlockType::mbconv) conv_bn("dwconv2", "bn");
  if (s.se > 0) {
    const std::string n = "block." + std::to_string(at++);
    m["se_reduce"] = n + ".fc1";
    m["se_expand"] = n + ".fc2";
  }
  conv_bn("project_conv", "project_bn");
  return m;
}

std::string torch_module(const Architecture& a, const std::string& layer, bool timm) {
  int stage, index;
  std::string part;
  if (parse_block(layer, stage, index, part)) {
    const StageSpec& s = a.stages.at(stage - 1);
    const Modules modules = timm ? timm_block(s) : torchvision_block(s);
    const std::string prefix =
        timm ? "blocks." + std::to_string(stage - 1) : "features." + std::to_string(stage);
    return prefix + "." + std::to_string(index) + "." + modules.at(part);
  }
  const std::string last = "features." + std::to_string(a.stages.size() + 1);
  const std::map<std::string, std::pair<std::string, std::string>> fixed{
      {"stem_conv", {"conv_stem", "features.0.0"}},
      {"stem_bn", {"bn1", "features.0.1"}},
      {"top_conv", {"conv_head", last + ".0"}},
      {"top_bn", {"bn2", last + ".1"}},
      {"predictions", {"classifier", "classifier.1"}}};
  const auto it = fixed.find(layer);
  return it == fixed.end() ? layer : timm ? it->second.first : it->second.second;
}

ForeignTensor torch_tensor(int index, const Parameter& p, Kind kind, const Architecture& a, bool timm) {
  static const std::map<std::string, const char*> names{{"kernel", "weight"},
                                                        {"bias", "bias"},
                                                        {"gamma", "weight"},
                                                        {"beta", "bias"},
                                                        {"moving_mean", "running_mean"},
                                                        {"moving_variance", "running_var"}};
  const std::string weight = weight_of(p.name);
  ForeignTensor t{index, {torch_module(a, layer_of(p.name), timm) + "." + names.at(weight)}, {{0}}};
  if (weight != "kernel") return t;
  switch (kind) {
    case Kind::conv:
      t.orders = {{0, 3, 1, 2}};
      break;
    case Kind::depthwise:
      t.orders = {{2, -1, 0, 1}};
      break;
    case Kind::squeeze:
      t.orders = {{0, 1, -1, -1}, {0, 1}};
      break;
    default:
      t.orders = {{0, 1}};
  }
  return t;
}

// "conv2d_12" -> ("conv2d", 12); "conv2d" -> ("conv2d", 0)
std::pair<std::string, int64_t> numbered(const std::string& layer) {
  const size_t digits = layer.find_last_not_of("0123456789") + 1;
  if (digits < 2 || digits == layer.size() || layer.size() - digits > 9 || layer[digits - 1] != '_')
    return {layer, 0};
  return {layer.substr(0, digits - 1), std::stoll(layer.substr(digits))};
}

}  // namespace

std::vector<ForeignTensor> foreign_tensors(const Architecture& a, const ParameterTable& table, Framework f) {
  std::vector<ForeignTensor> all;
  for (int i = 0; i < table.size(); ++i) {
    const Kind kind = kind_of(table[i]);
    all.push_back(f == Framework::keras ? keras_tensor(i, table[i], kind)
                                        : torch_tensor(i, table[i], kind, a, f == Framework::timm));
  }
  return all;
}

void name_by_order(TensorFile& source, const ParameterTable& table) {
  std::set<std::string> present;
  for (const auto& [name, _] : source.tensors) present.insert(layer_of(name));
  std::map<std::string, std::vector<std::string>> ours;  // by class, in network order
  std::set<std::string> seen;
  for (const Parameter& p : table) {
    const std::string layer = layer_of(p.name);
    if (seen.insert(layer).second && !present.count(layer)) ours[keras_class(kind_of(p))].push_back(layer);
  }
  std::map<std::string, std::vector<std::string>> theirs;
  for (const std::string& layer : present)
    if (!seen.count(layer)) theirs[numbered(layer).first].push_back(layer);
  std::map<std::string, std::string> renamed;
  for (auto& [kind, layers] : theirs) {
    const auto match = ours.find(kind);
    if (match == ours.end() || match->second.size() != layers.size()) continue;
    std::sort(layers.begin(), layers.end(),
              [](const auto& x, const auto& y) { return numbered(x).second < numbered(y).second; });
    for (size_t i = 0; i < layers.size(); ++i) renamed[layers[i]] = match->second[i];
  }
  if (renamed.empty()) return;
  std::map<std::string, StoredTensor> tensors;
  for (auto& [name, t] : source.tensors) {
    const auto it = renamed.find(layer_of(name));
    tensors[it == renamed.end() ? name : it->second + "/" + weight_of(name)] = std::move(t);
  }
  source.tensors = std::move(tensors);
}

}  // namespace gm
