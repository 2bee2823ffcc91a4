// HDF5 files as tests write them, with images of 6x8 px.
#pragma once
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "data/hdf5_util.h"

namespace gm::test {

/// Writes one dataset; chunk empty: contiguous.
template <class T>
void put(hid_t file, const char* name, hid_t type, std::vector<hsize_t> shape, const std::vector<T>& values,
         const std::vector<hsize_t>& chunk = {}) {
  h5::Handle space(H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr), H5Sclose);
  h5::Handle layout(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  if (!chunk.empty()) {
    H5Pset_chunk(layout, static_cast<int>(chunk.size()), chunk.data());
    H5Pset_deflate(layout, 4);
  }
  h5::Handle data(H5Dcreate2(file, name, type, space, H5P_DEFAULT, layout, H5P_DEFAULT), H5Dclose);
  ASSERT_GE(H5Dwrite(data, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0);
}

inline void put_names(hid_t object, const std::vector<const char*>& names) {
  h5::Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type, H5T_VARIABLE);
  hsize_t n = names.size();
  h5::Handle space(H5Screate_simple(1, &n, nullptr), H5Sclose);
  h5::Handle attribute(H5Acreate2(object, "class_names", type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  ASSERT_GE(H5Awrite(attribute, type, names.data()), 0);
}

inline h5::Handle create(const std::string& path) {
  h5::Lock lock;  // sets the library up as the product does
  return h5::Handle(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
}

inline std::vector<uint8_t> pixels(hsize_t n) {
  std::vector<uint8_t> values(n * 6 * 8 * 3);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<uint8_t>(i * 7 + i / 251);
  return values;
}

}  // namespace gm::test
