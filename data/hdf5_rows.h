// An HDF5 file whose datasets grow by rows: results streamed to disk as they come.
#pragma once
#include <string>
#include <vector>

#include "data/hdf5_util.h"
#include "engine/atomic_file.h"

namespace gm::h5 {

/// Created under a temporary name; finish() gives it its own. Throws gm::Error naming the file when it cannot
/// be written.
class RowFile {
 public:
  /// `begun`: a finished file of the same datasets, with a copy of whose rows this one begins.
  explicit RowFile(const std::string& path, const std::string& begun = "");
  ~RowFile();

  /// A dataset (N, row_shape...) of this type; returns its number. compress: deflate 4.
  int add(const std::string& name, hid_t type, const std::vector<hsize_t>& row_shape = {},
          bool compress = false);
  /// A dataset (N) of UTF-8 text.
  int add_text(const std::string& name) { return add(name, text_); }
  /// Appends `rows` rows of this type in memory.
  void append(int dataset, hid_t type, hsize_t rows, const void* data);
  void append(int dataset, const std::vector<std::string>& rows);
  /// Attributes of the file.
  void attribute(const std::string& name, const std::vector<std::string>& values);
  void attribute(const std::string& name, const std::string& value);
  /// `name`: see PendingFile::commit.
  void finish(const std::string& name = "");
  /// Puts all that was appended on disk; returns the name under which it lies there for now.
  const std::string& flush();

 private:
  void check(bool good) const;
  void close();
  struct Rows {
    Handle set;
    std::vector<hsize_t> shape;  // (rows so far, row_shape...)
  };
  std::string path_;
  bool begun_;
  PendingFile pending_;
  Handle file_, text_;
  std::vector<Rows> sets_;
};

}  // namespace gm::h5
