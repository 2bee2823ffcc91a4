#include "data/keras_weights.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <set>

#include "data/hdf5_util.h"
#include "data/keras_config.h"
#include "data/zip_file.h"
#include "engine/numbered_name.h"
#include "kernels/common/error.h"

namespace gm {

namespace {

using h5::Handle;

/// A layer as the file has it.
struct Layer {
  std::vector<std::string> models;  // and layers around it, outermost first
  std::string name;
  int listed = 0;      // place in the legacy format's list of layers
  bool named = false;  // by the file; otherwise `name` is class and number
  std::map<std::string, StoredTensor> weights;

  std::string group() const {
    std::string text;
    for (const std::string& m : models) text += m + "/";
    return text + name;
  }
  /// "cbam.fc1": with the models around it, but still one name.
  std::string qualified() const {
    std::string text = group();
    std::replace(text.begin(), text.end(), '/', '.');
    return text;
  }
};

/// All layers of a file that have weights.
class Layers {
 public:
  explicit Layers(const std::string& path) : path_(path) {}
  const std::string& path() const { return path_; }

  /// The dataset of `weight` of a layer; texts and the like are no weights.
  void add(Layer layer, const std::string& weight, hid_t dataset) {
    const std::string where = path_ + ": tensor '" + layer.name + "/" + weight + "'";
    const Handle type = h5::type_of(dataset);
    const H5T_class_t kind = H5Tget_class(type);
    if (kind != H5T_FLOAT && kind != H5T_INTEGER) return;
    const auto dims = h5::shape_of(dataset);
    const Shape shape = stored_shape({dims.begin(), dims.end()}, where);
    std::vector<float> values(static_cast<size_t>(shape.numel()));
    if (!values.empty() &&
        H5Dread(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) < 0)
      fail(where + ": cannot read: " + h5::reason());
    auto& weights = layers_.try_emplace(layer.group(), std::move(layer)).first->second.weights;
    if (!weights.try_emplace(weight, StoredTensor::of(shape, values)).second) fail(where + " occurs twice");
  }

  /// Layers without a name get that of the model's configuration.
  void rename(const std::map<std::string, std::string>& names) {
    for (auto& [group, layer] : layers_)
      if (const auto it = names.find(group); !layer.named && it != names.end()) layer.name = it->second;
  }

  /// A layer that is there, be it without weights.
  void note(const std::vector<std::string>& models, const std::string& name) {
    static const std::set<std::string> scaling{"rescaling", "normalization", "true_divide"};
    if (scaling.contains(numbered(name).first)) scalers_.emplace_back(models, name);
  }

  /// A layer of unknown effect in front of everything that has weights.
  void note_unknown(const std::string& name) {
    if (layers_.empty()) scalers_.emplace_back(std::vector<std::string>{name}, name);
  }

  TensorFile flat() &&;

 private:
  std::string foreign_scalers() const;

  std::string path_;
  std::vector<std::pair<std::vector<std::string>, std::string>> scalers_;  // the models around it, its name
  std::map<std::string, Layer> layers_;                                    // by group
};

// Order of layers of one class. A model inside another stands before the layers around it: a backbone, then a
// head. Where that is wrong the shapes are.
bool before(const Layer* a, const Layer* b) {
  if (a->listed != b->listed) return a->listed < b->listed;
  for (size_t i = 0; i < a->models.size() && i < b->models.size(); ++i)
    if (a->models[i] != b->models[i]) return numbered(a->models[i]) < numbered(b->models[i]);
  if (a->models.size() != b->models.size()) return a->models.size() > b->models.size();
  return numbered(a->name) < numbered(b->name);
}

// Keras's networks begin with at most rescaling, normalization and, only as published, a second rescaling,
// whose numbers are known. Others stand around the backbone, the model that has the most layers, or are too
// many.
std::string Layers::foreign_scalers() const {
  std::map<std::vector<std::string>, int> sizes;
  for (const auto& [_, layer] : layers_) ++sizes[layer.models];
  const auto backbone = std::max_element(sizes.begin(), sizes.end(),
                                         [](const auto& a, const auto& b) { return a.second < b.second; });
  std::string text;
  int rescaling = 0, normalization = 0;
  for (const auto& [models, name] : scalers_) {
    const std::string kind = numbered(name).first;
    const bool own = backbone != sizes.end() && models == backbone->first;
    rescaling += own && kind == "rescaling";
    normalization += own && kind == "normalization";
    if (!own || kind == "true_divide" || rescaling > 1 + normalization || normalization > 1)
      text += (text.empty() ? "'" : ", '") + name + "'";
  }
  return text;
}

TensorFile Layers::flat() && {
  const std::string scalers = foreign_scalers();
  static const std::set<std::string> numbered_by_keras{"conv2d", "depthwise_conv2d", "batch_normalization",
                                                       "dense", "normalization"};
  std::map<std::string, std::vector<Layer*>> names, classes;
  for (auto& [_, layer] : layers_) {
    names[layer.name].push_back(&layer);
    classes[numbered(layer.name).first].push_back(&layer);
  }
  std::set<std::string> anew;
  for (auto& [name, layers] : names) {
    if (layers.size() == 1) continue;
    if (numbered_by_keras.contains(numbered(name).first))
      anew.insert(numbered(name).first);
    else
      for (Layer* layer : layers) layer->name = layer->qualified();
  }
  for (const std::string& kind : anew) {
    std::vector<Layer*>& layers = classes[kind];
    std::sort(layers.begin(), layers.end(), before);
    for (size_t i = 0; i < layers.size(); ++i) layers[i]->name = i ? kind + "_" + std::to_string(i) : kind;
  }
  TensorFile file;
  file.path = path_;
  if (!scalers.empty()) file.metadata[kKerasScalers] = scalers;
  for (auto& [_, layer] : layers_)
    for (auto& [weight, tensor] : layer.weights) file.tensors[layer.name + "/" + weight] = std::move(tensor);
  return file;
}

bool is_state(const std::string& name) { return name.find("seed_generator") != std::string::npos; }

// Long attributes are split: layer_names0, layer_names1, ...
std::vector<std::string> names(hid_t object, const std::string& attribute) {
  std::vector<std::string> all = h5::read_string_attribute(object, attribute.c_str());
  for (int chunk = 0;; ++chunk) {
    const std::string name = attribute + std::to_string(chunk);
    if (H5Aexists(object, name.c_str()) <= 0) return all;
    for (std::string& s : h5::read_string_attribute(object, name.c_str())) all.push_back(std::move(s));
  }
}

bool has_attribute(hid_t object, const std::string& name) {
  return H5Aexists(object, name.c_str()) > 0 || H5Aexists(object, (name + "0").c_str()) > 0;
}

std::vector<std::string> parts_of(const std::string& name) {
  std::vector<std::string> parts;
  for (size_t at = 0, end = 0; end != std::string::npos; at = end + 1) {
    end = name.find('/', at);
    if (std::string part = name.substr(at, end - at); !part.empty()) parts.push_back(std::move(part));
  }
  return parts;
}

// Of "sequential/stem_conv/kernel:0" the last two parts name layer and weight; ":0" is TensorFlow's. Returns
// the weight.
std::string split_weight_name(const std::string& listed, Layer& layer) {
  std::vector<std::string> parts = parts_of(listed.substr(0, listed.find(':')));
  if (parts.empty()) return "";
  const std::string weight = parts.back();
  parts.pop_back();
  if (!parts.empty()) {
    layer.name = parts.back();
    parts.pop_back();
  }
  layer.models = std::move(parts);
  return weight;
}

void read_legacy(Layers& file, hid_t root) {
  int listed = 0;
  for (const std::string& name : names(root, "layer_names")) {
    ++listed;
    file.note({}, name);
    if (name.starts_with("lambda") || (name.starts_with("tf.") && name != "tf.cast")) file.note_unknown(name);
    if (name.empty() || H5Lexists(root, name.c_str(), H5P_DEFAULT) <= 0)
      fail(file.path() + ": layer '" + name + "' is listed but missing");
    const Handle group(H5Gopen2(root, name.c_str(), H5P_DEFAULT), H5Gclose);
    if (!group.ok()) fail(file.path() + ": layer '" + name + "': cannot read: " + h5::reason());
    for (const std::string& listed_weight : names(group, "weight_names")) {
      if (is_state(listed_weight)) continue;
      Layer layer{{}, name, listed, true, {}};
      const std::string weight = split_weight_name(listed_weight, layer);
      const Handle dataset(H5Dopen2(group, listed_weight.c_str(), H5P_DEFAULT), H5Dclose);
      if (!dataset.ok()) fail(file.path() + ": tensor '" + layer.name + "/" + weight + "' is missing");
      // What stands before the layer's own name need not be the models that the list means.
      if (layer.name == name)
        layer.models.clear();
      else if (layer.models.empty() || layer.models[0] != name)
        layer.models.insert(layer.models.begin(), name);
      file.add(std::move(layer), weight, dataset);
    }
  }
}

struct Walk {
  Layers* file;
  std::vector<std::string> groups;  // around the one being walked, without "layers" and "vars"
  std::string noted;                // name of the layer whose variables are walked, if the file has it
  std::string error;                // exceptions must not cross the library
  int depth;
};

herr_t visit(hid_t group, const char* name, const H5L_info_t*, void* data);

void walk(hid_t group, Walk& w) {
  if (w.depth > kKerasDepth) fail(w.file->path() + ": groups nested too deeply");
  hsize_t at = 0;
  const herr_t status = H5Literate(group, H5_INDEX_NAME, H5_ITER_NATIVE, &at, visit, &w);
  if (!w.error.empty()) fail(w.error);
  if (status < 0) fail(w.file->path() + ": cannot read: " + h5::reason());
}

void add_variable(Walk& w, const std::string& weight, hid_t dataset) {
  if (w.groups.empty()) return;
  Layer layer{{w.groups.begin(), w.groups.end() - 1}, w.groups.back(), 0, !w.noted.empty(), {}};
  if (layer.named) layer.name = w.noted;
  w.file->add(std::move(layer), weight, dataset);
}

// Groups named vars hold a layer's variables; newer versions of Keras note the layer's name there.
void walk_group(hid_t group, const std::string& name, Walk& w) {
  const std::vector<std::string> outer = w.groups;
  if (name == "vars") {
    const auto noted = h5::read_string_attribute(group, "name");
    w.noted = noted.empty() ? "" : noted[0];
  } else if (name != "layers" && name != "_layer_checkpoint_dependencies") {
    const size_t slash = name.find_last_of("\\/");  // some versions wrote "layers\conv2d" as one name
    const std::string layer = slash == std::string::npos ? name : name.substr(slash + 1);
    w.file->note(w.groups, layer);
    w.groups.push_back(layer);
  }
  ++w.depth;
  walk(group, w);
  --w.depth;
  w.noted.clear();
  w.groups = outer;
}

herr_t visit(hid_t parent, const char* raw, const H5L_info_t*, void* data) {
  Walk& w = *static_cast<Walk*>(data);
  try {
    const std::string name = raw;
    static const std::set<std::string> others{"optimizer", "optimizer_weights", "metrics"};
    if (is_state(name) || (w.depth == 0 && others.contains(name))) return 0;
    const Handle object(H5Oopen(parent, raw, H5P_DEFAULT), H5Oclose);
    if (!object.ok()) fail(w.file->path() + ": '" + name + "': cannot read: " + h5::reason());
    const H5I_type_t type = H5Iget_type(object);
    if (type == H5I_DATASET) add_variable(w, name, object);
    if (type == H5I_GROUP) walk_group(object, name, w);
    return 0;
  } catch (const std::exception& e) {
    w.error = e.what();
    return -1;
  }
}

bool is_object_format(hid_t root) {
  return H5Lexists(root, "layers", H5P_DEFAULT) > 0 ||
         H5Lexists(root, "_layer_checkpoint_dependencies", H5P_DEFAULT) > 0;
}

void read_objects(Layers& file, hid_t root) {
  Walk w{&file, {}, "", "", 0};
  walk(root, w);
}

void read_hdf5(Layers& file, hid_t root) {
  if (has_attribute(root, "layer_names")) return read_legacy(file, root);
  if (is_object_format(root)) return read_objects(file, root);
  if (H5Lexists(root, "model_weights", H5P_DEFAULT) <= 0)
    fail(file.path() + ": an HDF5 file, but not Keras weights (neither layer_names nor layers)");
  const Handle weights(H5Gopen2(root, "model_weights", H5P_DEFAULT), H5Gclose);
  if (!weights.ok() || !has_attribute(weights, "layer_names"))
    fail(file.path() + ": model_weights has no attribute layer_names");
  read_legacy(file, weights);
}

std::map<std::string, std::string> own_attributes(hid_t root) {
  std::vector<std::string> names;
  auto take = [](hid_t, const char* name, const H5A_info_t*, void* to) -> herr_t {
    static_cast<std::vector<std::string>*>(to)->emplace_back(name);
    return 0;
  };
  H5Aiterate2(root, H5_INDEX_NAME, H5_ITER_NATIVE, nullptr, take, &names);
  std::map<std::string, std::string> own;  // read here: exceptions must not cross the library
  for (const std::string& name : names)
    if (name.starts_with(kOwnAttributes))
      if (const auto text = h5::read_string_attribute(root, name.c_str()); text.size() == 1)
        own[name] = text[0];
  return own;
}

TensorFile finished(Layers&& layers, const std::string& config) {
  TensorFile file = std::move(layers).flat();
  if (file.tensors.empty()) fail(file.path + ": holds no weights");
  if (!config.empty()) file.metadata[kKerasConfig] = config;
  return file;
}

TensorFile read_archive(const std::string& path) {
  const std::string config = read_zip_member(path, "config.json");
  Layers layers(path);
  const Handle root = h5::open_image(path, read_zip_member(path, "model.weights.h5"));
  read_objects(layers, root);
  layers.rename(keras_layer_names(config, path));
  return finished(std::move(layers), config);
}

}  // namespace

TensorFile read_keras_weights(const std::string& path) {
  if (!std::filesystem::exists(path)) fail(path + ": cannot open: " + std::strerror(ENOENT));
  h5::Lock lock;
  if (is_zip(path)) return read_archive(path);
  const Handle root = h5::open_file(path);
  Layers layers(path);
  read_hdf5(layers, root);
  const auto config = h5::read_string_attribute(root, "model_config");
  TensorFile file = finished(std::move(layers), config.empty() ? "" : config[0]);
  file.metadata.merge(own_attributes(root));
  return file;
}

}  // namespace gm
