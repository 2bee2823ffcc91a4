// Weight files with one number a variable, for tests of the names that they are read under.
#pragma once
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "data/hdf5_util.h"
#include "data/keras_weights.h"

namespace gm::test {

/// A file of Keras 3 with one number for each path of a variable; paths that end in "/" are groups.
inline void write_objects(const std::string& path, const std::map<std::string, float>& variables) {
  h5::Lock lock;
  h5::Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
  h5::Handle parents(H5Pcreate(H5P_LINK_CREATE), H5Pclose), one(H5Screate(H5S_SCALAR), H5Sclose);
  H5Pset_create_intermediate_group(parents, 1);
  for (const auto& [name, value] : variables) {
    if (name.ends_with("/")) {
      h5::Handle group(H5Gcreate2(file, name.c_str(), parents, H5P_DEFAULT, H5P_DEFAULT), H5Gclose);
      ASSERT_TRUE(group.ok()) << name;
      continue;
    }
    h5::Handle data(H5Dcreate2(file, name.c_str(), H5T_IEEE_F32LE, one, parents, H5P_DEFAULT, H5P_DEFAULT),
                    H5Dclose);
    ASSERT_GE(H5Dwrite(data, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, &value), 0) << name;
  }
}

/// The numbers by the names that they are read under.
inline std::map<std::string, float> numbers_of(const std::string& path) {
  std::map<std::string, float> numbers;
  for (const auto& [name, t] : read_keras_weights(path).tensors) numbers[name] = t.floats()[0];
  return numbers;
}

/// The layers that the reader notes because they scale, as it lists them.
inline std::string noted_scalers(const std::string& path) {
  const TensorFile file = read_keras_weights(path);
  const auto it = file.metadata.find(kKerasScalers);
  return it == file.metadata.end() ? "" : it->second;
}

}  // namespace gm::test
