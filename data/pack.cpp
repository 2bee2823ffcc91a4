#include "data/pack.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <limits>
#include <vector>

#include "data/hdf5_dataset.h"
#include "data/hdf5_util.h"
#include "data/parallel.h"
#include "data/transform.h"
#include "engine/atomic_file.h"
#include "kernels/common/error.h"

namespace gm {
namespace {

using h5::Handle;

/// The file being written.
class Writer {
 public:
  explicit Writer(const std::string& path) : path_(path), pending_(path) {
    auto folder = std::filesystem::path(path).parent_path();
    if (!folder.empty() && !std::filesystem::is_directory(folder))
      fail(path + ": cannot write: no folder " + folder.string());
    h5::Lock lock;
    file_ = Handle(H5Fcreate(pending_.name().c_str(), H5F_ACC_EXCL, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
    need(file_.ok());
  }
  ~Writer() {
    h5::Lock lock;
    images_.reset();
    file_.reset();
  }

  void create_images(hsize_t n, hsize_t height, hsize_t width) {
    h5::Lock lock;
    hsize_t shape[4] = {n, height, width, 3}, chunk[4] = {1, height, width, 3};
    // Up to 128 KiB, of no more images than are read without a scratch file.
    chunk[0] = std::clamp<hsize_t>((128 << 10) / (height * width * 3), 1,
                                   std::min<hsize_t>(n, Hdf5Dataset::kCachedRows));
    Handle space(H5Screate_simple(4, shape, nullptr), H5Sclose);
    Handle layout(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
    need(H5Pset_chunk(layout, 4, chunk) >= 0 && H5Pset_deflate(layout, 4) >= 0);
    images_ =
        Handle(H5Dcreate2(file_, "images", H5T_STD_U8LE, space, H5P_DEFAULT, layout, H5P_DEFAULT), H5Dclose);
    need(images_.ok());
  }

  void put_images(hsize_t first, hsize_t count, hsize_t height, hsize_t width, const uint8_t* pixels) {
    h5::Lock lock;
    hsize_t start[4] = {first, 0, 0, 0}, shape[4] = {count, height, width, 3};
    Handle to = h5::space_of(images_), from(H5Screate_simple(4, shape, nullptr), H5Sclose);
    need(H5Sselect_hyperslab(to, H5S_SELECT_SET, start, nullptr, shape, nullptr) >= 0 &&
         H5Dwrite(images_, H5T_NATIVE_UINT8, from, to, H5P_DEFAULT, pixels) >= 0);
  }

  void put_column(const char* name, hid_t stored, hid_t memory, hsize_t n, const void* values) {
    put_table(name, stored, memory, {n}, values);
  }

  void put_table(const char* name, hid_t stored, hid_t memory, const std::vector<hsize_t>& shape,
                 const void* values) {
    h5::Lock lock;
    Handle space(H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr), H5Sclose);
    Handle column(H5Dcreate2(file_, name, stored, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Dclose);
    need(column.ok() && H5Dwrite(column, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
  }

  /// `strings` as fixed-length UTF-8: a dataset of the file, or an attribute of images.
  void put_strings(const char* name, const std::vector<std::string>& strings, bool attribute) {
    h5::Lock lock;
    size_t width = 1;
    for (const std::string& s : strings) width = std::max(width, s.size());
    std::vector<char> bytes(width * strings.size(), '\0');
    for (size_t i = 0; i < strings.size(); ++i)
      std::memcpy(&bytes[i * width], strings[i].data(), strings[i].size());
    Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
    need(H5Tset_size(type, width) >= 0 && H5Tset_strpad(type, H5T_STR_NULLPAD) >= 0 &&
         H5Tset_cset(type, H5T_CSET_UTF8) >= 0);
    hsize_t n = strings.size();
    if (!attribute) return put_column(name, type, type, n, bytes.data());
    Handle space(H5Screate_simple(1, &n, nullptr), H5Sclose);
    Handle out(H5Acreate2(images_, name, type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
    need(out.ok() && H5Awrite(out, type, bytes.data()) >= 0);
  }

  void commit() {
    {
      h5::Lock lock;
      need(H5Fflush(file_, H5F_SCOPE_LOCAL) >= 0 && images_.reset() && file_.reset());
    }
    pending_.commit();
  }

 private:
  void need(bool ok) {
    if (!ok) fail(path_ + ": cannot write: " + h5::reason());
  }

  std::string path_;
  PendingFile pending_;
  Handle file_, images_;
};

std::string sides(const Image& image) {
  return std::to_string(image.width) + "x" + std::to_string(image.height) + " px";
}

}  // namespace

void pack_hdf5(const Dataset& data, const std::string& path, const PackOptions& options) {
  int64_t n = data.size();
  if (n == 0) fail(data.path() + ": no images to pack");
  auto read = [&](int64_t i) {
    Image image = data.read(i);
    bool resize = options.size > 0 && (image.width != options.size || image.height != options.size);
    return resize ? resize_image(image, options.size) : image;
  };
  Image first = read(0);
  Writer out(path);
  out.create_images(n, first.height, first.width);

  size_t bytes = first.rgb.size();
  int64_t block = std::clamp<int64_t>((int64_t{64} << 20) / static_cast<int64_t>(bytes), 1, 256);
  std::vector<uint8_t> pixels(bytes * block);
  for (int64_t at = 0; at < n; at += block) {
    int64_t count = std::min(block, n - at);
    parallel_for(count, options.workers, [&](int64_t k) {
      Image image = read(at + k);
      if (image.width != first.width || image.height != first.height)
        fail(data.path() + ": " + data.id(at + k) + " is " + sides(image) + " but " + data.id(0) + " is " +
             sides(first) + ": give one size for all");
      std::memcpy(&pixels[k * bytes], image.rgb.data(), bytes);
    });
    out.put_images(at, count, first.height, first.width, pixels.data());
    if (options.progress) options.progress(at + count);
  }

  std::vector<int32_t> labels(n);
  std::vector<std::string> ids(n);
  std::vector<double> ra(n, std::numeric_limits<double>::quiet_NaN()), dec = ra;
  bool positions = false;
  for (int64_t i = 0; i < n; ++i) {
    labels[i] = data.label(i);
    ids[i] = data.id(i);
    positions = data.sky(i, ra[i], dec[i]) || positions;
  }
  out.put_column("ans", H5T_STD_I32LE, H5T_NATIVE_INT32, n, labels.data());
  if (data.soft()) {
    const size_t classes = data.classes().size();
    std::vector<float> shares(static_cast<size_t>(n) * classes);
    for (int64_t i = 0; i < n; ++i)
      std::ranges::copy(data.soft_label(i), shares.begin() + i * static_cast<int64_t>(classes));
    out.put_table("soft_labels", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, {hsize_t(n), classes}, shares.data());
  }
  out.put_strings("id_str", ids, false);
  if (positions) {
    out.put_column("ra", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, n, ra.data());
    out.put_column("dec", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, n, dec.data());
  }
  if (!data.classes().empty()) out.put_strings("class_names", data.classes(), true);
  out.commit();
}

}  // namespace gm
