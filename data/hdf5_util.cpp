#include "data/hdf5_util.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "kernels/common/error.h"

namespace gm::h5 {
namespace {

// Recursive: a dataset that is read while a pack writes may nest one locked section in another.
std::recursive_mutex& library_mutex() {
  // A file whose closing failed (disk full) stays half-open in the library, whose own clean-up at exit then
  // crashes. Everything here closes itself, so that clean-up is not needed.
  static const herr_t no_exit_handler = H5dont_atexit();
  (void)no_exit_handler;
  static std::recursive_mutex mutex;
  return mutex;
}

}  // namespace

Lock::Lock() : guard_(library_mutex()) { H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr); }

Handle& Handle::operator=(Handle&& other) noexcept {
  if (this != &other) {
    reset();
    id_ = other.id_;
    close_ = other.close_;
    other.id_ = -1;
  }
  return *this;
}

bool Handle::reset() {
  bool ok = id_ < 0 || close_(id_) >= 0;
  id_ = -1;
  return ok;
}

std::string reason() {
  std::string text;
  auto take = [](unsigned, const H5E_error2_t* error, void* out) -> herr_t {
    if (error->desc && *error->desc) *static_cast<std::string*>(out) = error->desc;
    return 1;  // the first one walking upward is the innermost
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take, &text);
  for (char& c : text)
    if (c == '\n') c = ' ';
  // Of "file write failed: ..., errno = 28, error message = 'No space left on device', ..." the quote will
  // do.
  const size_t from = text.find("error message = '"), to = text.find('\'', from + 17);
  if (from != std::string::npos && to != std::string::npos) text = text.substr(from + 17, to - from - 17);
  return text.empty() ? "unknown HDF5 error" : text;
}

Handle open_file(const std::string& path) {
  if (H5Fis_hdf5(path.c_str()) == 0) fail(path + ": not an HDF5 file");
  Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
  if (!file.ok()) fail(path + ": cannot open as HDF5: " + reason());
  return file;
}

Handle open_image(const std::string& name, std::string bytes) {
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  constexpr size_t kGrowth = 1 << 16;
  if (H5Pset_fapl_core(access, kGrowth, false) < 0 ||
      H5Pset_file_image(access, bytes.data(), bytes.size()) < 0)
    fail(name + ": cannot open as HDF5: " + reason());
  // HDF5 wants a name that no file has.
  Handle file(H5Fopen((name + "/image").c_str(), H5F_ACC_RDONLY, access), H5Fclose);
  if (!file.ok()) fail(name + ": cannot open as HDF5: " + reason());
  return file;
}

namespace {

std::string file_name(hid_t object) {
  std::string name(static_cast<size_t>(std::max<ssize_t>(0, H5Fget_name(object, nullptr, 0))), '\0');
  H5Fget_name(object, name.data(), name.size() + 1);
  return name;
}

/// The first file of a virtual dataset that is not there; HDF5 would read zeros in its place. Empty: none.
std::string lost_source(hid_t dataset, const std::filesystem::path& folder) {
  const Handle layout(H5Dget_create_plist(dataset), H5Pclose);
  size_t count = 0;
  if (H5Pget_layout(layout) != H5D_VIRTUAL || std::getenv("HDF5_VDS_PREFIX")) return "";
  H5Pget_virtual_count(layout, &count);
  std::string last = ".";  // the file itself
  for (size_t i = 0; i < count; ++i) {
    std::string name(
        static_cast<size_t>(std::max<ssize_t>(0, H5Pget_virtual_filename(layout, i, nullptr, 0))), '\0');
    H5Pget_virtual_filename(layout, i, name.data(), name.size() + 1);
    if (name == last || name == ".") continue;
    std::error_code none;
    const bool series = name.find('%') != std::string::npos;  // of files, as many as there are
    if (!series && !std::filesystem::exists(folder / name, none) && !std::filesystem::exists(name, none))
      return name;
    last = name;
  }
  return "";
}

}  // namespace

Handle open_dataset(hid_t file, const char* name) {
  if (H5Lexists(file, name, H5P_DEFAULT) <= 0) return {};
  Handle set(H5Dopen2(file, name, H5P_DEFAULT), H5Dclose);
  const std::string why = set.ok() ? "" : reason(), path = file_name(file);
  const std::string begin = path + ": cannot open the dataset \"" + name + "\": ";
  if (!set.ok()) fail(begin + why);
  const std::string lost = lost_source(set, std::filesystem::path(path).parent_path());
  if (!lost.empty()) fail(begin + "it is kept in " + lost + ", which is not there");
  return set;
}

Handle space_of(hid_t dataset) { return Handle(H5Dget_space(dataset), H5Sclose); }
Handle type_of(hid_t dataset) { return Handle(H5Dget_type(dataset), H5Tclose); }

std::vector<hsize_t> shape_of(hid_t dataset) {
  Handle space = space_of(dataset);
  int rank = H5Sget_simple_extent_ndims(space);
  std::vector<hsize_t> shape(rank > 0 ? rank : 0);
  if (rank > 0) H5Sget_simple_extent_dims(space, shape.data(), nullptr);
  return shape;
}

std::string shape_text(const std::vector<hsize_t>& shape) {
  std::string text;
  for (hsize_t n : shape) text += (text.empty() ? "" : ", ") + std::to_string(n);
  return "(" + text + ")";
}

std::vector<std::string> read_strings(hid_t object, bool is_attribute) {
  Handle type(is_attribute ? H5Aget_type(object) : H5Dget_type(object), H5Tclose);
  Handle space(is_attribute ? H5Aget_space(object) : H5Dget_space(object), H5Sclose);
  hssize_t count = space.ok() ? H5Sget_simple_extent_npoints(space) : 0;
  if (!type.ok() || H5Tget_class(type) != H5T_STRING || count <= 0) return {};
  auto read = [&](hid_t memory, void* out) {
    return (is_attribute ? H5Aread(object, memory, out)
                         : H5Dread(object, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, out)) >= 0;
  };
  std::vector<std::string> strings;
  Handle memory(H5Tcopy(type), H5Tclose);
  if (H5Tis_variable_str(type) > 0) {
    std::vector<char*> raw(count, nullptr);
    if (!read(memory, raw.data())) return {};
    for (char* s : raw) strings.emplace_back(s ? s : "");
    H5Dvlen_reclaim(memory, space, H5P_DEFAULT, raw.data());
  } else {
    size_t width = H5Tget_size(type);
    const bool blanks = H5Tget_strpad(type) == H5T_STR_SPACEPAD;  // fill the rest of the width
    std::vector<char> raw(width * count);
    if (!read(memory, raw.data())) return {};
    for (hssize_t i = 0; i < count; ++i) {
      strings.emplace_back(raw.data() + i * width, strnlen(raw.data() + i * width, width));
      while (blanks && !strings.back().empty() && strings.back().back() == ' ') strings.back().pop_back();
    }
  }
  return strings;
}

std::vector<std::string> read_string_attribute(hid_t object, const char* name) {
  if (H5Aexists(object, name) <= 0) return {};
  Handle attribute(H5Aopen(object, name, H5P_DEFAULT), H5Aclose);
  return attribute.ok() ? read_strings(attribute, true) : std::vector<std::string>{};
}

namespace {
bool write_text(hid_t object, const std::string& name, const Handle& space, const char* const* text) {
  const Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type, H5T_VARIABLE);
  H5Tset_cset(type, H5T_CSET_UTF8);
  const Handle attribute(H5Acreate2(object, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  return attribute.ok() && H5Awrite(attribute, type, text) >= 0;
}
}  // namespace

bool write_attribute(hid_t object, const std::string& name, const std::string& value) {
  const char* text = value.c_str();
  return write_text(object, name, Handle(H5Screate(H5S_SCALAR), H5Sclose), &text);
}

bool write_attribute(hid_t object, const std::string& name, const std::vector<std::string>& values) {
  std::vector<const char*> text;
  for (const auto& v : values) text.push_back(v.c_str());
  const hsize_t n = text.size();
  return write_text(object, name, Handle(H5Screate_simple(1, &n, nullptr), H5Sclose), text.data());
}

}  // namespace gm::h5
