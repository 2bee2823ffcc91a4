#include "data/keras_writer.h"

#include "data/hdf5_util.h"
#include "engine/atomic_file.h"
#include "kernels/common/error.h"

namespace gm {

namespace {

using h5::Handle;

/// Of files, groups and datasets: without the time, so that the same weights make the same file.
Handle timeless(hid_t kind) {
  Handle properties(H5Pcreate(kind), H5Pclose);
  H5Pset_obj_track_times(properties, false);
  return properties;
}

class KerasWriter {
 public:
  explicit KerasWriter(const std::string& path) : path_(path), pending_(path) {
    const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
    // Before 1.8 an attribute, such as the list of layers, had to be smaller than 64 KiB.
    need(H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_LATEST) >= 0);
    const Handle properties = timeless(H5P_FILE_CREATE);
    file_ = Handle(H5Fcreate(pending_.name().c_str(), H5F_ACC_TRUNC, properties, access), H5Fclose);
    need(file_.ok());
  }

  void attribute(const std::string& name, const std::string& value) {
    need(h5::write_attribute(file_, name, value));
  }

  /// Weights of one layer, "<layer>/<weight>", in its order. They lie in a group of the layer's name in
  /// another of that name.
  void layer(const std::string& name, const std::vector<std::string>& weights, const TensorFile& from) {
    const Handle group = new_group(file_, name), inner = new_group(group, name);
    std::vector<std::string> listed;
    for (const std::string& weight : weights) {
      listed.push_back(weight + ":0");  // TensorFlow's name of a variable
      dataset(inner, listed.back().substr(name.size() + 1), from.at(weight));
    }
    need(h5::write_attribute(group, "weight_names", listed));
    layers_.push_back(name);
  }

  void commit() {
    need(h5::write_attribute(file_, "layer_names", layers_));
    need(file_.reset());
    pending_.commit();
  }

 private:
  Handle new_group(hid_t parent, const std::string& name) const {
    const Handle properties = timeless(H5P_GROUP_CREATE);
    Handle group(H5Gcreate2(parent, name.c_str(), H5P_DEFAULT, properties, H5P_DEFAULT), H5Gclose);
    need(group.ok());
    return group;
  }
  void dataset(hid_t group, const std::string& name, const StoredTensor& tensor) const {
    const Shape& s = tensor.spec.shape;
    const std::vector<hsize_t> dims(s.dims.begin(), s.dims.begin() + s.rank);
    const Handle space(H5Screate_simple(s.rank, dims.data(), nullptr), H5Sclose),
        properties = timeless(H5P_DATASET_CREATE);
    const Handle data(
        H5Dcreate2(group, name.c_str(), H5T_IEEE_F32LE, space, H5P_DEFAULT, properties, H5P_DEFAULT),
        H5Dclose);
    need(data.ok() &&
         H5Dwrite(data, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, tensor.floats().data()) >= 0);
  }
  void need(bool good) const {
    if (!good) fail(path_ + ": cannot write: " + h5::reason());
  }

  std::string path_;
  PendingFile pending_;
  Handle file_;
  std::vector<std::string> layers_;
};

}  // namespace

void write_keras_weights(const std::string& path, const TensorFile& weights,
                         const std::vector<std::string>& order) {
  h5::Lock lock;
  KerasWriter writer(path);
  writer.attribute("keras_version", "2.15.0");  // without it layouts are those of Keras 1
  writer.attribute("backend", "tensorflow");
  for (const auto& [key, value] : weights.metadata) writer.attribute(key, value);
  for (size_t i = 0; i < order.size();) {
    const std::string layer = order[i].substr(0, order[i].rfind('/'));
    std::vector<std::string> own;
    for (; i < order.size() && order[i].substr(0, order[i].rfind('/')) == layer; ++i) own.push_back(order[i]);
    writer.layer(layer, own, weights);
  }
  writer.commit();
}

}  // namespace gm
