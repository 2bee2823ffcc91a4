#include "data/hdf5_rows.h"

#include <algorithm>

#include "kernels/common/error.h"

namespace gm::h5 {

RowFile::RowFile(const std::string& path, const std::string& begun)
    : path_(path), begun_(!begun.empty()), pending_(path) {
  Lock lock;
  const char* name = pending_.name().c_str();
  if (begun_) pending_.copy(begun);
  file_ = Handle(begun_ ? H5Fopen(name, H5F_ACC_RDWR, H5P_DEFAULT)
                        : H5Fcreate(name, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT),
                 H5Fclose);
  if (begun_ && !file_.ok()) fail(begun + ": cannot open as HDF5: " + reason());
  check(file_.ok());
  text_ = Handle(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(text_, H5T_VARIABLE);
  H5Tset_cset(text_, H5T_CSET_UTF8);
}

RowFile::~RowFile() {
  Lock lock;
  close();
  file_.reset();
}

void RowFile::check(bool good) const {
  if (!good) fail(path_ + ": cannot write: " + reason());
}

void RowFile::close() {
  sets_.clear();
  text_.reset();
}

int RowFile::add(const std::string& name, hid_t type, const std::vector<hsize_t>& row_shape, bool compress) {
  Lock lock;
  if (begun_) {
    Handle set = open_dataset(file_, name.c_str());
    if (!set.ok()) fail(path_ + ": cannot write: no dataset " + name + " to continue");
    std::vector<hsize_t> shape = shape_of(set);
    sets_.push_back({std::move(set), std::move(shape)});
    return static_cast<int>(sets_.size()) - 1;
  }
  const int rank = 1 + static_cast<int>(row_shape.size());
  std::vector<hsize_t> shape{0}, limit{H5S_UNLIMITED};
  hsize_t bytes = std::max<size_t>(1, H5Tget_size(type));
  for (hsize_t n : row_shape) shape.push_back(n), limit.push_back(n), bytes *= n;
  std::vector<hsize_t> chunk = shape;  // whole rows, about 128 KiB of them
  chunk[0] = std::clamp<hsize_t>((hsize_t{1} << 17) / std::max<hsize_t>(1, bytes), 1, 4096);
  const Handle space(H5Screate_simple(rank, shape.data(), limit.data()), H5Sclose);
  const Handle properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  check(H5Pset_chunk(properties, rank, chunk.data()) >= 0);
  if (compress) check(H5Pset_deflate(properties, 4) >= 0);
  Handle set(H5Dcreate2(file_, name.c_str(), type, space, H5P_DEFAULT, properties, H5P_DEFAULT), H5Dclose);
  check(set.ok());
  sets_.push_back({std::move(set), shape});
  return static_cast<int>(sets_.size()) - 1;
}

void RowFile::append(int dataset, hid_t type, hsize_t rows, const void* data) {
  if (rows == 0) return;
  Lock lock;
  Rows& s = sets_[dataset];
  const int rank = static_cast<int>(s.shape.size());
  std::vector<hsize_t> at(rank, 0), count = s.shape;
  at[0] = s.shape[0];
  count[0] = rows;
  s.shape[0] += rows;
  check(H5Dset_extent(s.set, s.shape.data()) >= 0);
  const Handle file_space(H5Dget_space(s.set), H5Sclose),
      memory(H5Screate_simple(rank, count.data(), nullptr), H5Sclose);
  check(H5Sselect_hyperslab(file_space, H5S_SELECT_SET, at.data(), nullptr, count.data(), nullptr) >= 0);
  check(H5Dwrite(s.set, type, memory, file_space, H5P_DEFAULT, data) >= 0);
}

void RowFile::append(int dataset, const std::vector<std::string>& rows) {
  std::vector<const char*> text;
  for (const auto& r : rows) text.push_back(r.c_str());
  append(dataset, text_, text.size(), text.data());
}

void RowFile::attribute(const std::string& name, const std::vector<std::string>& values) {
  Lock lock;
  check(begun_ || write_attribute(file_, name, values));
}

void RowFile::attribute(const std::string& name, const std::string& value) {
  Lock lock;
  check(begun_ || write_attribute(file_, name, value));
}

const std::string& RowFile::flush() {
  Lock lock;
  check(H5Fflush(file_, H5F_SCOPE_GLOBAL) >= 0);
  return pending_.name();
}

void RowFile::finish(const std::string& name) {
  {
    Lock lock;
    close();
    check(file_.reset());
  }
  pending_.commit(name);
}

}  // namespace gm::h5
