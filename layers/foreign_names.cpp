#include "layers/foreign_names.h"

#include <algorithm>
#include <map>
#include <set>

#include "engine/numbered_name.h"
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

// Of all blocks of the network.
int block_number(const Architecture& a, int stage, int index) {
  for (int s = 1; s < stage; ++s) index += a.stages.at(s - 1).layers;
  return index;
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

// Keras's MobileNetV2 numbers its blocks through; only the convolutions before and after them and the batch
// norms deviate from a pattern.
std::string mobilenet_layer(const Architecture& a, const std::string& layer) {
  static const std::map<std::string, std::string> around{
      {"stem_conv", "Conv1"}, {"stem_bn", "bn_Conv1"}, {"top_conv", "Conv_1"}, {"top_bn", "Conv_1_bn"}};
  static const std::map<std::string, std::string> parts{
      {"expand_conv", "expand"}, {"expand_bn", "expand_BN"},  {"dwconv2", "depthwise"},
      {"bn", "depthwise_BN"},    {"project_conv", "project"}, {"project_bn", "project_BN"}};
  if (const auto it = around.find(layer); it != around.end()) return it->second;
  int stage, index;
  std::string part;
  if (!parse_block(layer, stage, index, part) || !parts.contains(part)) return layer;
  const int block = block_number(a, stage, index);
  return (block ? "block_" + std::to_string(block) : "expanded_conv") + "_" + parts.at(part);
}

/// Keras's names of a layer, the usual one first.
std::vector<std::string> keras_layers(const Architecture& a, const std::string& layer, Kind kind) {
  if (is_mobilenet(a)) return {mobilenet_layer(a, layer), layer};
  // EfficientNet's first version calls the layer dwconv.
  if (kind == Kind::depthwise) return {layer, layer.substr(0, layer.size() - 1)};
  return {layer};
}

ForeignTensor keras_tensor(int index, const Parameter& p, Kind kind, const Architecture& a) {
  const std::string layer = layer_of(p.name), weight = weight_of(p.name);
  ForeignTensor t{index, {}, {{0}}};
  // Keras 3 numbers a layer's variables in the order of their creation.
  static const std::map<std::string, const char*> order{{"kernel", "0"},      {"bias", "1"},
                                                        {"gamma", "0"},       {"beta", "1"},
                                                        {"moving_mean", "2"}, {"moving_variance", "3"}};
  for (const std::string& theirs : keras_layers(a, layer, kind)) {
    t.names.push_back(theirs + "/" + weight);
    t.names.push_back(theirs + "/" + order.at(weight));
    if (kind == Kind::depthwise) t.names.push_back(theirs + "/depthwise_kernel");  // Keras 2
  }
  if (weight != "kernel") return t;
  switch (kind) {
    case Kind::conv:
      t.orders = {{1, 2, 3, 0}};
      break;
    case Kind::depthwise:
      t.orders = {{0, 1, 2, -1}};
      break;
    case Kind::squeeze:
      t.orders = {{-1, -1, 1, 0}, {1, 0}};
      break;
    default:
      t.orders = {{1, 0}};
      if (layer.starts_with("cbam_")) t.orders.push_back({-1, -1, 1, 0});  // as a 1x1 convolution
  }
  return t;
}

// ---- PyTorch

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

// torchvision's MobileNetV2 numbers the blocks through; only the projection is no unit of convolution, norm
// and activation.
std::string mobilenet_module(const Architecture& a, int stage, int index, const std::string& part) {
  const bool expands = a.stages.at(stage - 1).expand != 1;
  const std::string depthwise = expands ? "1" : "0", project = expands ? "2" : "1",
                    project_bn = expands ? "3" : "2";
  const Modules modules{{"expand_conv", "0.0"},     {"expand_bn", "0.1"},      {"dwconv2", depthwise + ".0"},
                        {"bn", depthwise + ".1"},   {"project_conv", project}, {"project_bn", project_bn},
                        {"se_reduce", "se_reduce"}, {"se_expand", "se_expand"}};
  return "features." + std::to_string(1 + block_number(a, stage, index)) + ".conv." + modules.at(part);
}

std::string torch_module(const Architecture& a, const std::string& layer, bool timm) {
  int stage, index;
  std::string part;
  if (parse_block(layer, stage, index, part)) {
    if (!timm && is_mobilenet(a)) return mobilenet_module(a, stage, index, part);
    const StageSpec& s = a.stages.at(stage - 1);
    const Modules modules = timm ? timm_block(s) : torchvision_block(s);
    const std::string prefix =
        timm ? "blocks." + std::to_string(stage - 1) : "features." + std::to_string(stage);
    return prefix + "." + std::to_string(index) + "." + modules.at(part);
  }
  const int stages = static_cast<int>(a.stages.size());
  const std::string last =
      "features." + std::to_string(1 + (is_mobilenet(a) ? block_number(a, stages + 1, 0) : stages));
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

}  // namespace

std::vector<ForeignTensor> foreign_tensors(const Architecture& a, const ParameterTable& table, Framework f) {
  std::vector<ForeignTensor> all;
  for (int i = 0; i < table.size(); ++i) {
    const Kind kind = kind_of(table[i]);
    all.push_back(f == Framework::keras ? keras_tensor(i, table[i], kind, a)
                                        : torch_tensor(i, table[i], kind, a, f == Framework::timm));
  }
  return all;
}

bool is_mobilenet(const Architecture& a) {
  return a.act == Act::relu6 && std::all_of(a.stages.begin(), a.stages.end(),
                                            [](const StageSpec& s) { return s.block == BlockType::mbconv; });
}

bool is_first_efficientnet(const Architecture& a) {
  constexpr int kBlocks[][3] = {{3, 1, 1}, {3, 2, 6}, {5, 2, 6}, {3, 2, 6},
                                {5, 1, 6}, {5, 2, 6}, {3, 1, 6}};  // kernel, stride, expansion: Tan & Le 2019
  if (a.act != Act::silu || a.stages.size() != std::size(kBlocks)) return false;
  return std::equal(a.stages.begin(), a.stages.end(), kBlocks, [](const StageSpec& s, const int(&b)[3]) {
    return s.block == BlockType::mbconv && s.kernel == b[0] && s.stride == b[1] && s.expand == b[2] &&
           s.se > 0;
  });
}

bool may_be_missing(const std::string& parameter) {
  return is_head(parameter) || parameter.starts_with("cbam_") || parameter.starts_with("top_se_");
}

namespace {

/// A layer of the network that the file has not by name.
struct Wanted {
  std::string name;
  std::vector<const Parameter*> parameters;
  std::vector<const ForeignTensor*> theirs;

  bool added() const { return may_be_missing(name + "/"); }  // behind the backbone
};

using LayerWeights = std::map<std::string, const StoredTensor*>;
using Names = std::map<std::string, std::string>;  // their layer -> ours

// The number of classes is the file's.
bool has_shape(const Shape& shape, const Parameter& p, const AxisOrder& order) {
  if (shape.rank != static_cast<int>(order.size())) return false;
  for (int i = 0; i < shape.rank; ++i) {
    const bool classes = order[i] == 0 && p.name.starts_with("predictions/");
    if (!classes && shape[i] != (order[i] < 0 ? 1 : p.shape[order[i]])) return false;
  }
  return true;
}

/// Whether their layer has the weights of ours, by name or number, and each of its shape.
bool fits(const LayerWeights& layer, const Wanted& ours) {
  if (layer.size() != ours.parameters.size()) return false;
  for (size_t i = 0; i < ours.parameters.size(); ++i) {
    const ForeignTensor& t = *ours.theirs[i];
    const auto found = std::find_if(t.names.begin(), t.names.end(),
                                    [&](const std::string& n) { return layer.contains(weight_of(n)); });
    if (found == t.names.end()) return false;
    const Shape& shape = layer.at(weight_of(*found))->spec.shape;
    if (std::none_of(t.orders.begin(), t.orders.end(),
                     [&](const AxisOrder& o) { return has_shape(shape, *ours.parameters[i], o); }))
      return false;
  }
  return true;
}

/// Names that layers behind the backbone get by their shapes: where one layer alone has them, and has those
/// of no other. Predictions come last and take any number of classes.
Names names_by_shape(const std::map<std::string, LayerWeights>& theirs, const std::vector<Wanted>& wanted) {
  Names names;
  for (const Wanted& ours : wanted) {
    if (!ours.added()) continue;
    std::vector<std::string> fitting;
    for (const auto& [layer, weights] : theirs)
      if (!names.contains(layer) && fits(weights, ours)) fitting.push_back(layer);
    if (fitting.size() != 1) continue;
    const bool others = std::any_of(wanted.begin(), wanted.end(), [&](const Wanted& other) {
      return &other != &ours && other.added() && other.name != "predictions" &&
             fits(theirs.at(fitting[0]), other);
    });
    if (!others) names[fitting[0]] = ours.name;
  }
  return names;
}

/// Adds names of layers that are counted by class.
void add_names_by_order(const std::map<std::string, LayerWeights>& theirs, const std::vector<Wanted>& wanted,
                        Names& names) {
  std::set<std::string> given;
  for (const auto& [_, ours] : names) given.insert(ours);
  std::map<std::string, std::vector<std::string>> all, backbone, file;  // by class
  for (const Wanted& ours : wanted) {
    if (given.contains(ours.name)) continue;
    const char* kind = keras_class(kind_of(*ours.parameters[0]));
    all[kind].push_back(ours.name);
    if (!ours.added()) backbone[kind].push_back(ours.name);
  }
  for (const auto& [layer, _] : theirs)
    if (!names.contains(layer)) file[numbered(layer).first].push_back(layer);
  for (auto& [kind, layers] : file) {
    const auto& ours = layers.size() == all[kind].size() ? all[kind] : backbone[kind];
    if (ours.size() != layers.size()) continue;
    std::sort(layers.begin(), layers.end(),
              [](const auto& x, const auto& y) { return numbered(x).second < numbered(y).second; });
    for (size_t i = 0; i < layers.size(); ++i) names[layers[i]] = ours[i];
  }
}

}  // namespace

std::set<std::string> name_by_order(TensorFile& source, const Architecture& a, const ParameterTable& table) {
  const std::vector<ForeignTensor> tensors = foreign_tensors(a, table, Framework::keras);
  std::map<std::string, LayerWeights> theirs;
  for (const auto& [name, t] : source.tensors) theirs[layer_of(name)][weight_of(name)] = &t;
  std::vector<Wanted> wanted;
  std::set<std::string> present;  // ours
  for (const ForeignTensor& t : tensors)
    for (const std::string& name : t.names)
      if (theirs.contains(layer_of(name))) present.insert(layer_of(table[t.parameter].name));
  for (const ForeignTensor& t : tensors) {
    const Parameter& p = table[t.parameter];
    const std::string layer = layer_of(p.name);
    for (const std::string& name : t.names) theirs.erase(layer_of(name));
    if (present.contains(layer)) continue;
    if (wanted.empty() || wanted.back().name != layer) wanted.push_back({layer, {}, {}});
    wanted.back().parameters.push_back(&p);
    wanted.back().theirs.push_back(&t);
  }
  // Shapes decide only where they leave nothing over: a dense layer of another network fits as well.
  Names names = names_by_shape(theirs, wanted);
  add_names_by_order(theirs, wanted, names);
  if (names.size() < theirs.size()) {
    names.clear();
    add_names_by_order(theirs, wanted, names);
  }
  if (names.empty()) return {};
  std::set<std::string> renamed;
  std::map<std::string, StoredTensor> out;
  for (auto& [name, t] : source.tensors) {
    const auto it = names.find(layer_of(name));
    if (it != names.end()) renamed.insert(it->second);
    out[it == names.end() ? name : it->second + "/" + weight_of(name)] = std::move(t);
  }
  source.tensors = std::move(out);
  return renamed;
}

}  // namespace gm
