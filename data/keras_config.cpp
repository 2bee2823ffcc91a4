#include "data/keras_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "data/keras_weights.h"
#include "kernels/common/error.h"

namespace gm {

namespace {

using nlohmann::json;

constexpr const char* kHowToSay = "say it with --set 'input.scaling={mean: M, std: S}' for (x - M) / S";

json parsed(const std::string& config, const std::string& path) {
  const json model = json::parse(config, nullptr, false);
  if (!model.is_object()) fail(path + ": the model's configuration is not JSON");
  return model;
}

std::string text(const json& object, const char* key) {
  const auto it = object.is_object() ? object.find(key) : object.end();
  return it != object.end() && it->is_string() ? it->get<std::string>() : "";
}

const json& config_of(const json& layer) {
  static const json none = json::object();
  const auto it = layer.is_object() ? layer.find("config") : layer.end();
  return it != layer.end() && it->is_object() ? *it : none;
}

/// The layers of a model in the order of its own list; those of a layer that holds none: an empty list.
const json& layers_of(const json& model) {
  static const json none = json::array();
  const json& config = config_of(model);
  const auto it = config.find("layers");
  return it != config.end() && it->is_array() ? *it : none;
}

// "DepthwiseConv2D" -> "depthwise_conv2d": a word begins at a capital before a small letter or after one.
std::string snake_case(const std::string& name) {
  auto small = [](char c) { return c >= 'a' && c <= 'z'; };
  auto capital = [](char c) { return c >= 'A' && c <= 'Z'; };
  std::string snake;
  for (size_t i = 0; i < name.size(); ++i) {
    if (i && capital(name[i]) && (small(name[i - 1]) || (i + 1 < name.size() && small(name[i + 1]))))
      snake += '_';
    snake += capital(name[i]) ? static_cast<char>(name[i] - 'A' + 'a') : name[i];
  }
  return snake;
}

void collect_names(const json& model, const std::string& group, int depth,
                   std::map<std::string, std::string>& names) {
  std::map<std::string, int> count;
  if (depth > kKerasDepth) return;
  for (const json& layer : layers_of(model)) {
    const std::string kind = snake_case(text(layer, "class_name"));
    const int n = count[kind]++;
    const std::string here = group + kind + (n ? "_" + std::to_string(n) : "");
    if (const std::string name = text(config_of(layer), "name"); !name.empty()) names[here] = name;
    collect_names(layer, here + "/", depth + 1, names);
  }
}

using Channels = std::array<double, 3>;

/// One number for all channels or one for each, in lists of any depth.
bool read_channels(const json& value, Channels& out) {
  std::vector<double> numbers;
  const json leaves = json::array({value}).flatten();
  for (const json& leaf : leaves) {
    if (!leaf.is_number()) return false;
    numbers.push_back(leaf.get<double>());
  }
  if (numbers.size() != 1 && numbers.size() != 3) return false;
  for (size_t c = 0; c < 3; ++c) out[c] = numbers[numbers.size() == 1 ? 0 : c];
  return true;
}

/// x * scale + offset
struct Affine {
  Channels scale{1, 1, 1}, offset{0, 0, 0};
  void then(const Channels& factor, const Channels& shift) {
    for (size_t c = 0; c < 3; ++c) {
      scale[c] *= factor[c];
      offset[c] = offset[c] * factor[c] + shift[c];
    }
  }
};

/// Reads the layers of a model one after the other, up to the first convolution.
class Front {
 public:
  explicit Front(TensorFile& weights) : weights_(weights) {}

  /// Whether the first convolution has been reached.
  bool read(const json& model, int depth = 0) {
    if (depth > kKerasDepth) fail(weights_.path + ": models nested too deeply");
    for (const json& layer : layers_of(model)) {
      const std::string kind = text(layer, "class_name");
      if (kind.find("Conv") != std::string::npos) return true;
      if (!layers_of(layer).empty()) {
        if (read(layer, depth + 1)) return true;
      } else if (!take(layer, kind)) {
        fail(weights_.path + ": layer '" + text(config_of(layer), "name") + "' (" + kind +
             ") stands before the first convolution, and what it does to pixels is not known; " + kHowToSay);
      }
    }
    return false;
  }

  bool scales() const { return scales_; }
  const Affine& affine() const { return affine_; }

 private:
  bool take(const json& layer, const std::string& kind) {
    if (kind == "Rescaling") return rescaling(config_of(layer));
    if (kind == "Normalization") return normalization(config_of(layer));
    return neutral(layer, kind) || arithmetic(layer, kind);
  }

  bool scaled(const Channels& factor, const Channels& shift) {
    affine_.then(factor, shift);
    return scales_ = true;
  }

  bool rescaling(const json& config) {
    Channels scale, offset;
    return read_channels(config.value("scale", json(1)), scale) &&
           read_channels(config.value("offset", json(0)), offset) && scaled(scale, offset);
  }

  // Constants of the configuration, or what adapt() left among the weights.
  bool normalization(const json& config) {
    Channels mean, variance;
    if (config.value("invert", json(false)) != json(false)) return false;
    const bool constant = read_channels(config.value("mean", json()), mean) &&
                          read_channels(config.value("variance", json()), variance);
    if (!constant && !take_statistics(text(config, "name"), mean, variance)) return false;
    for (size_t c = 0; c < 3; ++c) {
      variance[c] = 1 / std::max(std::sqrt(variance[c]), 1e-7);
      mean[c] *= -variance[c];
    }
    return scaled(variance, mean);
  }

  bool take_statistics(const std::string& layer, Channels& mean, Channels& variance) {
    for (const auto& [m, v, count] :
         {std::array{"/mean", "/variance", "/count"}, std::array{"/0", "/1", "/2"}}) {
      const auto means = weights_.tensors.find(layer + m), variances = weights_.tensors.find(layer + v);
      if (means == weights_.tensors.end() || variances == weights_.tensors.end()) continue;
      if (!read_channels(json(means->second.floats()), mean) ||
          !read_channels(json(variances->second.floats()), variance))
        return false;
      for (const char* name : {m, v, count}) weights_.tensors.erase(layer + name);
      return true;
    }
    return false;
  }

  static bool neutral(const json& layer, const std::string& kind) {
    static const std::vector<std::string> kinds{"InputLayer",    "Dropout",         "SpatialDropout2D",
                                                "GaussianNoise", "GaussianDropout", "Resizing",
                                                "CenterCrop",    "ZeroPadding2D",   "Cast",
                                                "RandAugment",   "AugMix",          "MixUp",
                                                "CutMix"};
    return kind.starts_with("Random") || std::find(kinds.begin(), kinds.end(), kind) != kinds.end() ||
           text(config_of(layer), "function") == "cast";
  }

  /// x / 127.5 and the like, which a functional model records as layers: Keras 2 as TFOpLambda with the other
  /// operand `y` among the inbound nodes, Keras 3 as TrueDivide and so on with it behind the tensor.
  bool arithmetic(const json& layer, const std::string& kind) {
    const auto nodes = layer.find("inbound_nodes");
    if (nodes == layer.end() || nodes->size() != 1) return false;
    std::string op = kind;
    json operand;
    if (kind == "TFOpLambda") {
      op = text(config_of(layer), "function");
      const json& node = (*nodes)[0];
      if (node.is_array() && node.size() == 4 && node[3].is_object()) operand = node[3].value("y", json());
    } else if (const json args = (*nodes)[0].is_object() ? (*nodes)[0].value("args", json()) : json();
               args.is_array() && args.size() == 2) {
      operand = args[1];
    }
    Channels y, one{1, 1, 1}, zero{0, 0, 0};
    if (!read_channels(operand, y)) return false;
    auto each = [&](auto f) { return Channels{f(y[0]), f(y[1]), f(y[2])}; };
    if (op == "TrueDivide" || op == "Divide" || op == "math.truediv" || op == "math.divide")
      return scaled(each([](double v) { return 1 / v; }), zero);
    if (op == "Multiply" || op == "math.multiply") return scaled(y, zero);
    if (op == "Subtract" || op == "math.subtract") return scaled(one, each([](double v) { return -v; }));
    if (op == "Add" || op == "math.add" || op == "__operators__.add") return scaled(one, y);
    return false;
  }

  TensorFile& weights_;
  Affine affine_;
  bool scales_ = false;
};

}  // namespace

std::map<std::string, std::string> keras_layer_names(const std::string& config, const std::string& path) {
  std::map<std::string, std::string> names;
  collect_names(parsed(config, path), "", 0, names);
  return names;
}

std::optional<PixelScaling> take_pixel_scaling(TensorFile& weights) {
  const auto config = weights.metadata.find(kKerasConfig);
  if (config == weights.metadata.end()) {
    const auto scalers = weights.metadata.find(kKerasScalers);
    if (scalers == weights.metadata.end()) return {};
    fail(weights.path + ": the model scales pixels with " + scalers->second +
         ", but the file holds weights only and not by how much: import what model.save('model.keras') "
         "writes, or " +
         kHowToSay);
  }
  Front front(weights);
  front.read(parsed(config->second, weights.path));
  if (!front.scales()) return {};
  PixelScaling scaling;
  for (size_t c = 0; c < 3; ++c) {
    const double scale = front.affine().scale[c];
    if (scale == 0 || !std::isfinite(scale) || !std::isfinite(front.affine().offset[c]))
      fail(weights.path + ": the layers before the first convolution leave nothing of the pixels");
    scaling.mean.push_back(-front.affine().offset[c] / scale);
    scaling.std.push_back(1 / scale);
  }
  return scaling;
}

}  // namespace gm
