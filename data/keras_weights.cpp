#include "data/keras_weights.h"

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "data/hdf5_util.h"
#include "kernels/common/error.h"

namespace gm {

namespace {

using h5::Handle;

void add(TensorFile& file, const std::string& name, hid_t dataset) {
  const std::string where = file.path + ": tensor '" + name + "'";
  if (file.tensors.count(name)) fail(where + " occurs twice");
  const Handle type = h5::type_of(dataset);
  const H5T_class_t kind = H5Tget_class(type);
  if (kind != H5T_FLOAT && kind != H5T_INTEGER) return;  // texts and the like are no weights
  const auto dims = h5::shape_of(dataset);
  const Shape shape = stored_shape({dims.begin(), dims.end()}, where);
  std::vector<float> values(static_cast<size_t>(shape.numel()));
  if (!values.empty() && H5Dread(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) < 0)
    fail(where + ": cannot read: " + h5::reason());
  file.tensors[name] = StoredTensor::of(shape, values);
}

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

void read_legacy(TensorFile& file, hid_t root) {
  for (const std::string& layer : names(root, "layer_names")) {
    if (layer.empty() || H5Lexists(root, layer.c_str(), H5P_DEFAULT) <= 0)
      fail(file.path + ": layer '" + layer + "' is listed but missing");
    const Handle group(H5Gopen2(root, layer.c_str(), H5P_DEFAULT), H5Gclose);
    if (!group.ok()) fail(file.path + ": layer '" + layer + "': cannot read: " + h5::reason());
    for (const std::string& weight : names(group, "weight_names")) {
      // "sequential/stem_conv/kernel:0": the last two parts name layer and weight; ":0" is TensorFlow's.
      std::string name = weight.substr(0, weight.find(':'));
      const size_t slash = name.rfind('/');
      if (slash == std::string::npos)
        name = layer + "/" + name;
      else if (const size_t before = name.rfind('/', slash - 1); slash > 0 && before != std::string::npos)
        name = name.substr(before + 1);
      const Handle dataset(H5Dopen2(group, weight.c_str(), H5P_DEFAULT), H5Dclose);
      if (!dataset.ok()) fail(file.path + ": tensor '" + name + "' is missing");
      add(file, name, dataset);
    }
  }
}

struct Walk {
  TensorFile* file;
  std::string layer;  // of the group being walked
  std::string error;  // exceptions must not cross the library
  int depth;
};

herr_t visit(hid_t group, const char* name, const H5L_info_t*, void* data);

// Groups named vars hold a layer's variables; newer versions of Keras note the layer's name there.
void walk(hid_t group, Walk& w, bool variables) {
  if (w.depth > 32) fail(w.file->path + ": groups nested too deeply");
  hsize_t at = 0;
  const std::string outer = w.layer;
  if (variables) {
    const auto noted = h5::read_string_attribute(group, "name");
    if (!noted.empty() && !noted[0].empty()) w.layer = noted[0];
  }
  const herr_t status = H5Literate(group, H5_INDEX_NAME, H5_ITER_NATIVE, &at, visit, &w);
  w.layer = outer;
  if (!w.error.empty()) fail(w.error);
  if (status < 0) fail(w.file->path + ": cannot read: " + h5::reason());
}

herr_t visit(hid_t parent, const char* raw, const H5L_info_t*, void* data) {
  Walk& w = *static_cast<Walk*>(data);
  try {
    const std::string name = raw;
    if (w.depth == 0 && (name == "optimizer" || name == "optimizer_weights")) return 0;
    if (name == "seed_generator") return 0;  // of each dropout layer
    const Handle object(H5Oopen(parent, raw, H5P_DEFAULT), H5Oclose);
    if (!object.ok()) fail(w.file->path + ": '" + name + "': cannot read: " + h5::reason());
    const H5I_type_t type = H5Iget_type(object);
    if (type == H5I_DATASET) {
      if (!w.layer.empty()) add(*w.file, w.layer + "/" + name, object);
    } else if (type == H5I_GROUP) {
      const std::string outer = w.layer;
      if (name != "vars") {  // some versions wrote "layers\conv2d" as one name
        const size_t slash = name.find_last_of("\\/");
        w.layer = slash == std::string::npos ? name : name.substr(slash + 1);
      }
      ++w.depth;
      walk(object, w, name == "vars");
      --w.depth;
      w.layer = outer;
    }
    return 0;
  } catch (const std::exception& e) {
    w.error = e.what();
    return -1;
  }
}

}  // namespace

TensorFile read_keras_weights(const std::string& path) {
  if (!std::filesystem::exists(path)) fail(path + ": cannot open: " + std::strerror(ENOENT));
  h5::Lock lock;
  TensorFile file;
  file.path = path;
  const Handle root = h5::open_file(path);
  if (has_attribute(root, "layer_names")) {
    read_legacy(file, root);
  } else if (H5Lexists(root, "model_weights", H5P_DEFAULT) > 0) {
    const Handle weights(H5Gopen2(root, "model_weights", H5P_DEFAULT), H5Gclose);
    if (!weights.ok() || !has_attribute(weights, "layer_names"))
      fail(path + ": model_weights has no attribute layer_names");
    read_legacy(file, weights);
  } else if (H5Lexists(root, "layers", H5P_DEFAULT) > 0 ||
             H5Lexists(root, "_layer_checkpoint_dependencies", H5P_DEFAULT) > 0) {
    Walk w{&file, "", "", 0};
    walk(root, w, false);
  } else {
    fail(path + ": an HDF5 file, but not Keras weights (neither layer_names nor layers)");
  }
  if (file.tensors.empty()) fail(path + ": holds no weights");
  return file;
}

}  // namespace gm
