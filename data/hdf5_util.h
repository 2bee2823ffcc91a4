// Thin RAII over the HDF5 C API: handles that close themselves, one lock, errors as one line.
#pragma once
#include <hdf5.h>

#include <mutex>
#include <string>
#include <vector>

namespace gm::h5 {

/// HDF5 is not thread-safe as commonly built, so every call of this library happens under one of these. It
/// also keeps HDF5 from printing its error stack. The first one switches HDF5's clean-up at exit off, which
/// has to happen before any other HDF5 call of the program.
class Lock {
 public:
  Lock();

 private:
  std::lock_guard<std::recursive_mutex> guard_;
};

/// An identifier that closes itself (under the caller's Lock). Valid when >= 0.
class Handle {
 public:
  Handle() = default;
  Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  Handle(Handle&& other) noexcept : id_(other.id_), close_(other.close_) { other.id_ = -1; }
  Handle& operator=(Handle&& other) noexcept;
  ~Handle() { reset(); }
  /// Closes; false when closing failed (for a file: its last writes did not reach the disk).
  bool reset();
  bool ok() const { return id_ >= 0; }
  operator hid_t() const { return id_; }

 private:
  hid_t id_ = -1;
  herr_t (*close_)(hid_t) = nullptr;
};

/// The innermost message of HDF5's error stack after a failed call, as one line.
std::string reason();

Handle open_file(const std::string& path);
/// A file that is in memory; `name` is for messages. Throws gm::Error.
Handle open_image(const std::string& name, std::string bytes);
/// Not ok() where there is none. Throws gm::Error for one that is there and cannot be opened: written by a
/// newer library, a link to a file or a virtual dataset of files that are gone, a group. Taken for missing,
/// it would leave positions out unnoticed.
Handle open_dataset(hid_t file, const char* name);
Handle space_of(hid_t dataset);
Handle type_of(hid_t dataset);
std::vector<hsize_t> shape_of(hid_t dataset);

/// "(10, 256, 256, 3)"
std::string shape_text(const std::vector<hsize_t>& shape);

/// All strings of a 1-D (or scalar) dataset or attribute, fixed or variable length; empty when it is not
/// text.
std::vector<std::string> read_strings(hid_t object, bool is_attribute);
/// The attribute `name` of `object` as strings; empty when there is none.
std::vector<std::string> read_string_attribute(hid_t object, const char* name);

/// A new attribute of `object`, UTF-8 text of any length: one, or a list. False when it cannot be written.
bool write_attribute(hid_t object, const std::string& name, const std::string& value);
bool write_attribute(hid_t object, const std::string& name, const std::vector<std::string>& values);

}  // namespace gm::h5
