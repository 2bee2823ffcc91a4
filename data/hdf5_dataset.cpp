#include "data/hdf5_dataset.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "data/utf8.h"
#include "kernels/common/bytes.h"
#include "kernels/common/ceil_div.h"
#include "kernels/common/error.h"

namespace gm {
namespace {

std::string scratch_folder() {
  const char* folder = std::getenv("TMPDIR");
  // Not /tmp: it is often held in memory, which is what the scratch file is there to save.
  return folder && *folder ? folder : "/var/tmp";
}

int make_scratch() {
  std::string name = scratch_folder() + "/galaxy-pixels-XXXXXX";
  int fd = ::mkstemp(name.data());
  if (fd < 0)
    throw MachineError(name + ": cannot create a scratch file: " + std::strerror(errno) + " (set TMPDIR)");
  ::unlink(name.c_str());  // it goes with the descriptor, even when the program is killed
  return fd;
}

/// 0, or why not all could be written.
int write_all(int fd, const uint8_t* bytes, int64_t size, int64_t at) {
  while (size > 0) {
    const ssize_t done = ::pwrite(fd, bytes, static_cast<size_t>(size), at);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return errno;
    if (done == 0) return ENOSPC;
    bytes += done, at += done, size -= done;
  }
  return 0;
}

/// Throws gm::Error for a dataset compressed in a way that this HDF5 cannot undo (h5py's lzf, plugins). Only
/// reading a chunk would tell otherwise, image by image.
void check_filters(const std::string& path, hid_t layout) {
  for (int i = 0; i < H5Pget_nfilters(layout); ++i) {
    char name[64] = "";
    unsigned flags = 0;
    size_t values = 0;
    const H5Z_filter_t id = H5Pget_filter2(layout, static_cast<unsigned>(i), &flags, &values, nullptr,
                                           sizeof name, name, nullptr);
    if (id >= 0 && H5Zfilter_avail(id) <= 0)
      fail(path + ": images is compressed with filter " + std::to_string(id) +
           (*name ? " (" + std::string(name) + ")" : "") +
           ", which this HDF5 library lacks: write the file anew with gzip");
  }
}

void check_utf8(const std::string& path, const std::string& name, const std::vector<std::string>& strings) {
  for (size_t i = 0; i < strings.size(); ++i)
    if (not_utf8(strings[i]) != std::string::npos)
      fail(path + ": " + name + "[" + std::to_string(i) + "] is \"" + utf8_of(strings[i]) +
           "\", which is not UTF-8 text; write " + name + " anew as UTF-8");
}

/// Whether pixels were never written, as by a program that ended early, and so have no place in the file.
bool any_unwritten(hid_t images, hid_t layout, const std::vector<hsize_t>& shape) {
  if (H5Pget_layout(layout) == H5D_CONTIGUOUS)
    return H5Pget_external_count(layout) == 0 && H5Dget_storage_size(images) == 0;
  if (H5Pget_layout(layout) != H5D_CHUNKED) return false;
  hsize_t chunk[4] = {1, 1, 1, 1}, written = 0, all = 1;
  H5Pget_chunk(layout, 4, chunk);
  for (size_t k = 0; k < 4; ++k) all *= ceil_div(shape[k], chunk[k]);
  return H5Dget_num_chunks(images, h5::space_of(images), &written) >= 0 && written < all;
}

/// Whether all chunks with these pixels have a place in a file that lacks some.
bool is_written(hid_t images, const hsize_t* start, const hsize_t* count) {
  const h5::Handle layout(H5Dget_create_plist(images), H5Pclose);
  hsize_t chunk[4], at[4], bytes = 0;
  if (H5Pget_layout(layout) != H5D_CHUNKED || H5Pget_chunk(layout, 4, chunk) != 4) return false;
  auto all_along = [&](auto& self, int k) -> bool {  // the dimensions from k on
    if (k == 4) return H5Dget_chunk_storage_size(images, at, &bytes) >= 0 && bytes > 0;
    for (at[k] = start[k] / chunk[k] * chunk[k]; at[k] < start[k] + count[k]; at[k] += chunk[k])
      if (!self(self, k + 1)) return false;
    return true;
  };
  return all_along(all_along, 0);
}

}  // namespace

/// The scratch file, by its descriptor.
struct Hdf5Dataset::Scratch {
  Scratch() : fd(make_scratch()) {}
  ~Scratch() { ::close(fd); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  const int fd;
};

Hdf5Dataset::Hdf5Dataset(const std::string& path, const OpenOptions& options) : path_(path) {
  if (::access(path.c_str(), R_OK) != 0) fail(path + ": cannot open: " + std::strerror(errno));
  h5::Lock lock;
  open();
  shape_ = h5::shape_of(images_);
  if (shape_.size() != 4 || shape_[3] != 3)
    fail(path + ": images has shape " + h5::shape_text(shape_) + ", expected (N, H, W, 3)");
  h5::Handle type = h5::type_of(images_);
  if (H5Tget_class(type) != H5T_INTEGER || H5Tget_size(type) != 1 || H5Tget_sign(type) != H5T_SGN_NONE)
    fail(path + ": images is not of type uint8");
  if (shape_[0] == 0) fail(path + ": holds no images");
  if (std::min(shape_[1], shape_[2]) < kMinSide || std::max(shape_[1], shape_[2]) > kMaxSide)
    fail(path + ": images has shape " + h5::shape_text(shape_) + ", sides must be " +
         std::to_string(kMinSide) + ".." + std::to_string(kMaxSide) + " px");
  h5::Handle layout(H5Dget_create_plist(images_), H5Pclose);
  check_filters(path, layout);
  if (H5Pget_layout(layout) == H5D_CHUNKED) {
    hsize_t chunk[4] = {1, 1, 1, 1};
    H5Pget_chunk(layout, 4, chunk);
    block_rows_ = static_cast<int64_t>(std::min(chunk[0], shape_[0]));
    block_lines_ = static_cast<int64_t>(std::min(chunk[1], shape_[1]));
  }
  unwritten_ = any_unwritten(images_, layout, shape_);
  if (options.labels)
    read_labels(options);
  else
    labels_.assign(shape_[0], -1);
  sky_ = {read_column("ra"), read_column("dec")};
  read_ids();
}

Hdf5Dataset::~Hdf5Dataset() { Hdf5Dataset::release(); }

void Hdf5Dataset::open() const {
  file_ = h5::open_file(path_);
  images_ = h5::open_dataset(file_, "images");
  if (!images_.ok()) fail(path_ + ": no dataset \"images\"");
}

void Hdf5Dataset::reopen() const {
  try {
    open();
    if (h5::shape_of(images_) == shape_) return;
  } catch (const Error& e) {
    throw MachineError(e.what());
  }
  images_.reset();
  file_.reset();
  throw MachineError(path_ + ": has been replaced since it was opened");
}

void Hdf5Dataset::release() const {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    recent_.clear();
    kept_.clear();
    unpacked_.clear();
    scratch_.reset();
  }
  h5::Lock lock;
  images_.reset();
  file_.reset();
}

/// Of integers, or of floats that are whole numbers.
std::vector<int64_t> Hdf5Dataset::read_whole_numbers(hid_t column, const std::string& name) const {
  const H5T_class_t kind = H5Tget_class(h5::type_of(column));
  if (kind != H5T_INTEGER && kind != H5T_FLOAT) fail(path_ + ": " + name + " is not of an integer type");
  std::vector<int64_t> values(shape_[0]);
  std::vector<double> floats(kind == H5T_FLOAT ? shape_[0] : 0);
  const herr_t status = kind == H5T_FLOAT
                            ? H5Dread(column, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, floats.data())
                            : H5Dread(column, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
  if (status < 0) fail(path_ + ": cannot read " + name + ": " + h5::reason());
  for (size_t i = 0; i < floats.size(); ++i) {
    if (!(std::abs(floats[i]) < 1e15) || floats[i] != std::floor(floats[i]))
      fail(path_ + ": " + name + " is not of an integer type, and " + name + "[" + std::to_string(i) +
           "] = " + std::to_string(floats[i]) + " is not a whole number");
    values[i] = static_cast<int64_t>(floats[i]);
  }
  return values;
}

void Hdf5Dataset::read_labels(const OpenOptions& options) {
  h5::Handle ans = h5::open_dataset(file_, "ans");
  if (!ans.ok()) fail(path_ + ": no dataset \"ans\" (the labels)");
  std::vector<hsize_t> shape = h5::shape_of(ans);
  if (shape.size() != 1 || shape[0] != shape_[0])
    fail(path_ + ": ans has shape " + h5::shape_text(shape) + ", expected (" + std::to_string(shape_[0]) +
         ") like images");
  const std::vector<int64_t> values = read_whole_numbers(ans, "ans");

  std::vector<std::string> names = h5::read_string_attribute(images_, "class_names");
  if (names.empty()) names = h5::read_string_attribute(file_, "class_names");
  check_utf8(path_, "class_names", names);
  int64_t most = *std::max_element(values.begin(), values.end());
  if (names.empty() && most == 9) names = galaxy10_classes();
  if (names.empty())
    for (int64_t k = 0; k <= most && k < 10000; ++k) names.push_back(std::to_string(k));

  check_distinct(path_, names);
  // A model's own class list is met by name: another file may number the same classes differently. A class
  // without a name goes by its number.
  std::vector<int> to_given(names.size());
  for (size_t k = 0; k < names.size(); ++k) to_given[k] = static_cast<int>(k);
  if (const auto& given = options.classes; !given.empty()) {
    for (size_t k = 0; k < names.size() && !only_numbered(given); ++k) {
      auto found = std::find(given.begin(), given.end(), names[k]);
      if (found != given.end())
        to_given[k] = static_cast<int>(found - given.begin());
      else if (names[k] != std::to_string(k))
        fail_unknown_class(path_, names[k], given);
    }
    names = given;
  }
  labels_.resize(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    bool known = values[i] >= -1 && values[i] < static_cast<int64_t>(to_given.size());
    labels_[i] = !known ? -2 : values[i] < 0 ? -1 : to_given[values[i]];
    if (labels_[i] < -1 || labels_[i] >= static_cast<int>(names.size()))
      fail(path_ + ": ans[" + std::to_string(i) + "] = " + std::to_string(values[i]) + " is not a class" +
           (to_given.empty() ? ", and no other ans is one"
                             : " (0.." + std::to_string(std::min(to_given.size(), names.size()) - 1) + ")"));
  }
  classes_ = std::move(names);
  read_soft_labels(to_given);
}

/// `to_given`: the class, as this set numbers them, of each column.
void Hdf5Dataset::read_soft_labels(const std::vector<int>& to_given) {
  const h5::Handle column = h5::open_dataset(file_, "soft_labels");
  if (!column.ok()) return;
  const size_t columns = to_given.size();
  if (h5::shape_of(column) != std::vector<hsize_t>{shape_[0], columns})
    fail(path_ + ": soft_labels has shape " + h5::shape_text(h5::shape_of(column)) + ", expected (" +
         std::to_string(shape_[0]) + ", " + std::to_string(columns) + "), images and classes");
  std::vector<float> all(shape_[0] * columns), shares(classes_.size());
  if (H5Dread(column, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, all.data()) < 0)
    fail(path_ + ": cannot read soft_labels: " + h5::reason());
  soft_ = SoftLabels(size(), classes_);
  for (int64_t i = 0; i < size(); ++i) {
    if (labels_[i] < 0) continue;
    std::fill(shares.begin(), shares.end(), 0.f);
    const float* row = &all[static_cast<size_t>(i) * columns];
    const std::string where = path_ + ": soft_labels[" + std::to_string(i) + "]";
    for (size_t k = 0; k < columns; ++k) {
      const auto to = static_cast<size_t>(to_given[k]);  // of a class without a name, its number
      if (row[k] != 0 && to >= shares.size()) fail_unknown_class(where, std::to_string(k), classes_);
      if (row[k] != 0) shares[to] = row[k];
    }
    const int largest = soft_.set(i, shares, where);
    if (largest < 0 || shares[static_cast<size_t>(labels_[i])] < shares[static_cast<size_t>(largest)])
      fail(where + ": the largest share is not that of ans, " + classes_[static_cast<size_t>(labels_[i])]);
    labels_[i] = largest;
  }
  soft_.finish();
}

void Hdf5Dataset::read_ids() {
  const h5::Handle ids = h5::open_dataset(file_, "id_str");
  if (!ids.ok()) return;
  const hssize_t count = H5Sget_simple_extent_npoints(h5::space_of(ids));
  if (count != static_cast<hssize_t>(shape_[0]))
    fail(path_ + ": id_str has " + std::to_string(count) + " rows, images has " + std::to_string(shape_[0]));
  const H5T_class_t kind = H5Tget_class(h5::type_of(ids));
  if (kind == H5T_STRING) {
    ids_ = h5::read_strings(ids, false);
    check_utf8(path_, "id_str", ids_);
  } else if (kind == H5T_INTEGER) {
    const bool is_signed = H5Tget_sign(h5::type_of(ids)) == H5T_SGN_2;
    std::vector<uint64_t> numbers(shape_[0]);
    if (H5Dread(ids, is_signed ? H5T_NATIVE_INT64 : H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT,
                numbers.data()) < 0)
      numbers.clear();
    for (const uint64_t n : numbers)
      ids_.push_back(is_signed ? std::to_string(static_cast<int64_t>(n)) : std::to_string(n));
  } else {
    fail(path_ + ": id_str is neither text nor integers");
  }
  if (ids_.size() != shape_[0]) fail(path_ + ": cannot read id_str: " + h5::reason());
}

std::vector<double> Hdf5Dataset::read_column(const char* name) const {
  h5::Handle column = h5::open_dataset(file_, name);
  if (!column.ok()) return {};
  if (h5::shape_of(column) != std::vector<hsize_t>{shape_[0]})
    fail(path_ + ": " + name + " has shape " + h5::shape_text(h5::shape_of(column)) + ", expected (" +
         std::to_string(shape_[0]) + ") like images");
  std::vector<double> values(shape_[0]);
  if (H5Dread(column, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) < 0)
    fail(path_ + ": cannot read " + name + ": " + h5::reason());
  return values;
}

void Hdf5Dataset::read_pixels(int64_t row, int64_t rows, int64_t y, int64_t lines, uint8_t* out) const {
  h5::Lock lock;
  if (!images_.ok()) reopen();
  hsize_t start[4] = {hsize_t(row), hsize_t(y), 0, 0};
  hsize_t count[4] = {hsize_t(rows), hsize_t(lines), shape_[2], 3};
  h5::Handle from = h5::space_of(images_);
  h5::Handle to(H5Screate_simple(4, count, nullptr), H5Sclose);
  const bool written = !unwritten_ || is_written(images_, start, count);
  if (!written || H5Sselect_hyperslab(from, H5S_SELECT_SET, start, nullptr, count, nullptr) < 0 ||
      H5Dread(images_, H5T_NATIVE_UINT8, to, from, H5P_DEFAULT, out) < 0)
    fail(path_ + ": cannot read image" +
         (rows > 1 ? "s " + std::to_string(row) + " to " + std::to_string(row + rows - 1) +
                         ", one block of the file"
                   : " " + std::to_string(row)) +
         ": " + (written ? h5::reason() : "never written"));
}

Hdf5Dataset::Pixels Hdf5Dataset::block(int64_t index) const {
  if (const auto found = kept_.find(index); found != kept_.end()) {
    recent_.splice(recent_.begin(), recent_, found->second);
    return found->second->pixels;
  }
  int64_t first = index * block_rows_, rows = std::min(block_rows_, size() - first);
  size_t image_bytes = shape_[1] * shape_[2] * 3;
  auto pixels = std::make_shared<std::vector<uint8_t>>(rows * image_bytes);
  read_pixels(first, rows, 0, static_cast<int64_t>(shape_[1]), pixels->data());
  recent_.push_front({index, pixels});
  kept_[index] = recent_.begin();
  while (recent_.size() > 1 && recent_.size() * block_rows_ * image_bytes > kCacheBytes) {
    kept_.erase(recent_.back().index);
    recent_.pop_back();
  }
  return pixels;
}

size_t Hdf5Dataset::buffer_bytes() const {
  if (block_rows_ == 1 || block_rows_ > kCachedRows) return 0;
  const size_t one = static_cast<size_t>(block_rows_) * image_bytes();  // is kept whatever its size
  return std::min<size_t>(std::max<size_t>(kCacheBytes, one), shape_[0] * image_bytes());
}

void Hdf5Dataset::unpack_block(int64_t index) const {
  if (!scratch_) {
    scratch_ = std::make_shared<const Scratch>();
    unpacked_.assign(ceil_div(size(), block_rows_), 0);
  }
  int64_t first = index * block_rows_, rows = std::min(block_rows_, size() - first);
  int64_t height = static_cast<int64_t>(shape_[1]), line = static_cast<int64_t>(shape_[2]) * 3;
  std::vector<uint8_t> strip(rows * block_lines_ * line);
  for (int64_t y = 0; y < height; y += block_lines_) {
    int64_t lines = std::min(block_lines_, height - y);
    read_pixels(first, rows, y, lines, strip.data());
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t bytes = lines * line;
      if (const int reason =
              write_all(scratch_->fd, strip.data() + r * bytes, bytes, ((first + r) * height + y) * line))
        throw MachineError(path_ + ": no room to unpack " +
                           bytes_text(static_cast<size_t>(size() * height * line)) + " in " +
                           scratch_folder() + ": " + std::strerror(reason) +
                           " (set TMPDIR, or repack the file with gm_data pack where there is room)");
    }
  }
  unpacked_[index] = 1;
}

Image Hdf5Dataset::read(int64_t i) const {
  size_t bytes = shape_[1] * shape_[2] * 3;
  Image image{width(), height(), std::vector<uint8_t>(bytes)};
  if (block_rows_ == 1) {
    read_pixels(i, 1, 0, height(), image.rgb.data());
  } else if (block_rows_ <= kCachedRows) {
    Pixels pixels;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      pixels = block(i / block_rows_);
    }
    std::memcpy(image.rgb.data(), pixels->data() + (i % block_rows_) * bytes, bytes);
  } else {
    std::shared_ptr<const Scratch> scratch;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!scratch_ || !unpacked_[i / block_rows_]) unpack_block(i / block_rows_);
      scratch = scratch_;
    }
    if (::pread(scratch->fd, image.rgb.data(), bytes, static_cast<off_t>(i * bytes)) !=
        static_cast<ssize_t>(bytes))
      throw MachineError(path_ + ": cannot read image " + std::to_string(i) +
                         " back from its scratch file: " + std::strerror(errno));
  }
  return image;
}

}  // namespace gm
