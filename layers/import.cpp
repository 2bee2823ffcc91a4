#include "layers/import.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <set>

#include "kernels/common/error.h"
#include "layers/foreign_names.h"
#include "layers/v2_family.h"

namespace gm {

namespace {

const std::vector<double> kImageNetMean{0.485 * 255, 0.456 * 255, 0.406 * 255};
const std::vector<double> kImageNetStd{0.229 * 255, 0.224 * 255, 0.225 * 255};

Shape their_shape(const Shape& ours, const AxisOrder& order) {
  Shape s;
  for (int axis : order) s.dims[s.rank++] = axis < 0 ? 1 : ours[axis];
  return s;
}

// Moves values between the two layouts; `to_ours` says in which direction.
std::vector<float> transposed(const std::vector<float>& from, const Shape& ours, const AxisOrder& order,
                              bool to_ours) {
  int64_t stride[4] = {}, step = 1;  // of our axes in their layout
  for (int i = static_cast<int>(order.size()) - 1; i >= 0; --i)
    if (order[i] >= 0) {
      stride[order[i]] = step;
      step *= ours[order[i]];
    }
  std::vector<float> to(from.size());
  int64_t at[4] = {};
  for (size_t mine = 0; mine < to.size(); ++mine) {
    int64_t theirs = 0;
    for (int k = 0; k < ours.rank; ++k) theirs += at[k] * stride[k];
    if (to_ours)
      to[mine] = from[theirs];
    else
      to[theirs] = from[mine];
    for (int k = ours.rank - 1; k >= 0 && ++at[k] == ours[k]; --k) at[k] = 0;
  }
  return to;
}

const StoredTensor* find(const TensorFile& file, const ForeignTensor& t, std::string* name = nullptr) {
  for (const std::string& candidate : t.names)
    if (auto it = file.tensors.find(candidate); it != file.tensors.end()) {
      if (name) *name = candidate;
      return &it->second;
    }
  return nullptr;
}

// Bookkeeping of the frameworks that no network reads.
bool is_bookkeeping(const std::string& name) {
  return name.ends_with("num_batches_tracked") || name.find("seed_generator") != std::string::npos;
}

// What the file has in the place of something missing, for people: of Keras the layers, else the tensors.
std::string without_place(const TensorFile& source, const std::vector<ForeignTensor>& foreign) {
  std::set<std::string> known, others;
  for (const ForeignTensor& t : foreign) known.insert(t.names.begin(), t.names.end());
  for (const auto& [name, _] : source.tensors)
    if (!known.contains(name) && !is_bookkeeping(name)) others.insert(name.substr(0, name.rfind('/')));
  if (others.empty()) return "";
  std::string text;
  size_t count = 0;
  for (const std::string& name : others)
    if (++count <= 5) text += (count == 1 ? ", while '" : "', '") + name;
  return text + "'" + (count > 5 ? " and others" : "") + (count == 1 ? " has" : " have") +
         " no place in the network";
}

/// Whether timm's configuration of a model ("tf_efficientnetv2_s.in21k", or without its tag) has mean and std
/// 0.5, as of timm 1.0; ImageNet's otherwise.
bool scaled_to_one(const std::string& model) {
  const size_t dot = model.find('.');
  const std::string base = model.substr(0, dot), tag = dot == std::string::npos ? "" : model.substr(dot + 1);
  if (base == "tf_efficientnetv2_b3") return tag != "in1k";
  for (const char* start : {"tf_efficientnetv2_s", "tf_efficientnetv2_m", "tf_efficientnetv2_l",
                            "tf_efficientnetv2_xl", "tf_efficientnet_lite", "tf_efficientnet_e"})
    if (base.starts_with(start)) return true;
  if (base.ends_with("_pruned") || tag.starts_with("ap_in1k") || tag.starts_with("ra4_e3600")) return true;
  return tag.empty() && (base == "efficientnet_b1" || base == "tf_efficientnet_b8");  // their first tags
}

// Of a layer that was taken by its number and turned out another.
constexpr const char* kByOrder =
    "; the file numbers layers instead of naming them: model.save('model.keras') keeps the names";

// Keras's EfficientNet, unlike V2, keeps its input scaling in a layer with weights, behind a division by 255.
// The published weights have ImageNet's deviations in the place of their squares there, and another layer
// makes up for it.
void take_normalization(TensorFile& source, Architecture& a) {
  for (const auto& [mean_name, variance_name, count_name] :
       {std::array{"normalization/mean", "normalization/variance", "normalization/count"},
        std::array{"normalization/0", "normalization/1", "normalization/2"}}) {
    const auto mean = source.tensors.find(mean_name), variance = source.tensors.find(variance_name);
    if (mean == source.tensors.end() || variance == source.tensors.end()) continue;
    const std::vector<float> m = mean->second.floats(), v = variance->second.floats();
    if (m.size() != 3 || v.size() != 3) continue;
    bool published = true;
    for (int c = 0; c < 3; ++c) published &= std::abs(255 * v[c] - kImageNetStd[c]) < 0.1;
    a.mean.assign(3, 0), a.std.assign(3, 0);
    for (int c = 0; c < 3; ++c) {
      a.mean[c] = 255. * m[c];
      a.std[c] = published ? kImageNetStd[c] : 255 * std::max(std::sqrt(double(v[c])), 1e-7);
    }
    if (published) a.mean = kImageNetMean;
    for (const char* name : {mean_name, variance_name, count_name}) source.tensors.erase(name);
    return;
  }
}

/// The layer that take_normalization reads.
void add_normalization(OrderedTensors& out, const Architecture& a) {
  std::vector<float> mean, variance;
  for (size_t c = 0; c < 3; ++c) {
    mean.push_back(static_cast<float>(a.mean[c] / 255));
    variance.push_back(static_cast<float>(a.std[c] / 255 * a.std[c] / 255));
  }
  out.file.tensors["normalization/mean"] = StoredTensor::of(Shape{3}, mean);
  out.file.tensors["normalization/variance"] = StoredTensor::of(Shape{3}, variance);
  out.file.tensors["normalization/count"] = StoredTensor::of(Shape{}, {0});
  out.order = {"normalization/mean", "normalization/variance", "normalization/count"};
}

// The number of classes of the file's classifier, where it has one.
void take_classes(const TensorFile& source, const std::vector<ForeignTensor>& foreign,
                  const ParameterTable& table, Architecture& a) {
  for (const ForeignTensor& t : foreign) {
    if (table[t.parameter].name != "predictions/bias") continue;
    const StoredTensor* bias = find(source, t);
    if (!bias || bias->spec.shape.rank != 1) continue;
    const int64_t classes = bias->spec.shape[0];
    if (classes < 2 || classes > 10000)
      fail(source.path + ": tensor '" + t.names[0] + "': " + std::to_string(classes) + " classes");
    a.classes = static_cast<int>(classes);
    if (a.class_names.size() != static_cast<size_t>(classes)) a.class_names.clear();
  }
}

// Initial values for what the file lacks.
void add_fresh(Imported& to, const ParameterTable& table, uint64_t seed) {
  if (to.fresh.empty()) return;
  auto device = open_device("cpu", {.threads = 1});
  Weights weights(*device, table, false, false);
  weights.initialize(table, seed);
  for (const std::string& name : to.fresh) {
    const Parameter& p = table[table.find(name)];
    to.tensors.tensors[name] = StoredTensor::of(p.shape, weights.download(p));
  }
}

bool has_fused_stage(const Architecture& a) {
  return std::any_of(a.stages.begin(), a.stages.end(),
                     [](const StageSpec& s) { return s.block == BlockType::fused_mbconv; });
}

}  // namespace

std::string timm_model_of(const Architecture& a) {
  const std::string member = v2_member_of(a);
  for (const char* small : {"B0", "B1", "B2", "B3"})
    if (member.ends_with(small)) return std::string("tf_efficientnetv2_b") + small[1];
  if (has_fused_stage(a)) return a.same_padding ? "tf_efficientnetv2_s" : "efficientnetv2_s";
  if (a.act == Act::relu6) return "mobilenetv2_100";  // timm has it with symmetric padding only
  return a.same_padding ? "tf_efficientnet_b0" : "efficientnet_b0";
}

Framework framework_named(const std::string& name) {
  if (name == "keras") return Framework::keras;
  if (name == "timm") return Framework::timm;
  if (name == "torchvision") return Framework::torchvision;
  fail("'" + name + "' is not keras, timm or torchvision");
}

bool is_head(const std::string& parameter) {
  return parameter.starts_with("predictions/") || parameter.starts_with("hidden/");
}

void adopt_conventions(Architecture& a, Framework from, const std::string& asked) {
  if (from == Framework::keras) {
    a.same_padding = true;
    a.bn_epsilon = 1e-3;
    a.bn_momentum = has_fused_stage(a) ? 0.9
                    : is_mobilenet(a)  ? 0.999
                                       : 0.99;  // V2, MobileNetV2, EfficientNet
    a.bn_unbiased = false;
    return;
  }
  a.bn_momentum = 0.9;
  a.bn_unbiased = true;
  a.mean = kImageNetMean;
  a.std = kImageNetStd;
  if (from == Framework::torchvision) {
    a.same_padding = false;
    a.bn_epsilon = has_fused_stage(a) ? 1e-3 : 1e-5;
    return;
  }
  const std::string model = asked.empty() ? timm_model_of(a) : asked,
                    plain = model.starts_with("tf_") ? model.substr(3) : model;
  if (!plain.starts_with("efficientnet_") && !plain.starts_with("efficientnetv2_") &&
      !plain.starts_with("mobilenetv2_"))
    fail("timm has no EfficientNet or MobileNetV2 of the name '" + model + "'");
  a.same_padding = model.starts_with("tf_");
  a.bn_epsilon = a.same_padding ? 1e-3 : 1e-5;
  if (scaled_to_one(model)) a.mean = a.std = {127.5, 127.5, 127.5};
}

std::string conventions_text(const Architecture& a) {
  auto number = [](double v) {
    char text[32];
    std::snprintf(text, sizeof text, "%.6g", v);
    return std::string(text);
  };
  auto triple = [&](const std::vector<double>& v) {
    return v[0] == v[1] && v[1] == v[2]
               ? number(v[0])
               : "(" + number(v[0]) + ", " + number(v[1]) + ", " + number(v[2]) + ")";
  };
  return std::string("padding ") + (a.same_padding ? "same" : "symmetric") + ", batch norm epsilon " +
         number(a.bn_epsilon) + ", input scaling (x - " + triple(a.mean) + ") / " + triple(a.std);
}

Imported import_weights(TensorFile source, Framework from, Architecture& a, bool allow_missing_head,
                        uint64_t seed) {
  if (from == Framework::keras) take_normalization(source, a);
  std::set<std::string> guessed;  // layers whose name is not in the file
  {
    ParameterTable table;
    build_network(a, table, {.loss = false});
    if (from == Framework::keras) guessed = name_by_order(source, a, table);
    take_classes(source, foreign_tensors(a, table, from), table, a);
  }
  ParameterTable table;
  build_network(a, table, {.loss = false});
  Imported result;
  result.tensors.path = source.path;
  std::set<std::string> used;
  const std::vector<ForeignTensor> foreign = foreign_tensors(a, table, from);
  for (const ForeignTensor& t : foreign) {
    const Parameter& p = table[t.parameter];
    std::string name;
    const StoredTensor* stored = find(source, t, &name);
    if (!stored) {
      const std::string missing = source.path + ": tensor '" + t.names[0] + "' is missing";
      if (!may_be_missing(p.name)) fail(missing + without_place(source, foreign));
      if (!allow_missing_head)
        fail(missing + without_place(source, foreign) +
             "; --allow-missing-head starts such layers from fresh values");
      result.fresh.push_back(p.name);
      continue;
    }
    used.insert(name);
    const Shape& shape = stored->spec.shape;
    const auto order = std::find_if(t.orders.begin(), t.orders.end(),
                                    [&](const AxisOrder& o) { return their_shape(p.shape, o) == shape; });
    if (order == t.orders.end())
      fail(source.path + ": tensor '" + name + "' has shape " + shape.str() + ", the network needs " +
           their_shape(p.shape, t.orders[0]).str() +
           (guessed.count(p.name.substr(0, p.name.rfind('/'))) ? kByOrder : ""));
    if (stored->spec.dtype != DType::f32 && stored->spec.dtype != DType::bf16)
      fail(source.path + ": tensor '" + name + "' holds no floating-point numbers");
    result.tensors.tensors[p.name] =
        StoredTensor::of(p.shape, transposed(stored->floats(), p.shape, *order, true));
  }
  for (const auto& [name, _] : source.tensors)
    if (!used.count(name) && !is_bookkeeping(name)) result.unused.push_back(name);
  add_fresh(result, table, seed);
  return result;
}

TensorFile export_weights(const TensorFile& model, const Architecture& a, Framework to) {
  ParameterTable table;
  build_network(a, table, {.loss = false});
  TensorFile out;
  for (const ForeignTensor& t : foreign_tensors(a, table, to)) {
    const Parameter& p = table[t.parameter];
    const StoredTensor& stored = model.at(p.name);
    if (!(stored.spec.shape == p.shape))
      fail(model.path + ": tensor '" + p.name + "' has shape " + stored.spec.shape.str() +
           ", the network needs " + p.shape.str());
    out.tensors[t.names[0]] = StoredTensor::of(their_shape(p.shape, t.orders[0]),
                                               transposed(stored.floats(), p.shape, t.orders[0], false));
  }
  return out;
}

OrderedTensors export_keras_weights(const TensorFile& model, const Architecture& a) {
  OrderedTensors out{export_weights(model, a, Framework::keras), {}};
  const bool first = is_first_efficientnet(a);
  if (first) add_normalization(out, a);
  ParameterTable table;
  build_network(a, table, {.loss = false});
  for (const ForeignTensor& t : foreign_tensors(a, table, Framework::keras)) {
    std::string name = t.names[0];
    if (const size_t at = name.find("dwconv2/"); first && at != std::string::npos) {
      auto tensor = out.file.tensors.extract(name);
      tensor.key() = name.erase(at + 6, 1);
      out.file.tensors.insert(std::move(tensor));
    }
    out.order.push_back(name);
  }
  return out;
}

}  // namespace gm
