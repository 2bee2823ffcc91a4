// Whole files: read at once; written so that they appear under their name or not at all (beside it, synced,
// renamed).
#pragma once
#include <cstddef>
#include <functional>
#include <string>

namespace gm {

/// The bytes of a file. Throws gm::Error when it cannot be opened.
std::string read_file(const std::string& path);

/// A random name in the folder of `path`, so that no other process uses it; ends with the same extension.
std::string temporary_name(const std::string& path);

/// Removes what killed processes left of `path` in the making. For the only process that writes it.
void remove_unfinished(const std::string& path);

/// The file that writing `path` replaces: where it is a symbolic link, what that leads to. Throws gm::Error
/// when that is a folder, a pipe or a device.
std::string written_file(const std::string& path);

/// Syncs `temporary` to disk, renames it to `path` and syncs the folder. On failure removes it and throws
/// gm::Error.
void commit_file(const std::string& temporary, const std::string& path);

/// A file in the making: removed by the destructor unless it got its final name.
class PendingFile {
 public:
  /// Throws what written_file throws: before the work whose result would have no place.
  explicit PendingFile(const std::string& path);
  ~PendingFile();
  PendingFile(const PendingFile&) = delete;
  PendingFile& operator=(const PendingFile&) = delete;
  /// Where to write.
  const std::string& name() const { return name_; }
  /// Begins with the content of the file `from`.
  void copy(const std::string& from);
  /// See commit_file. `name`: instead of the path, another one in its folder.
  void commit(const std::string& name = "");

 private:
  std::string path_, name_;
  bool pending_ = true;
};

/// Writes `size` bytes as the whole content of `path`. Throws gm::Error naming the file and the reason
/// (no such folder, no permission, disk full, what written_file refuses); then neither a partial nor a
/// temporary file is left.
void write_file_atomic(const std::string& path, const void* bytes, size_t size);
void write_file_atomic(const std::string& path, const std::string& text);
/// The same in pieces: `content` calls its argument with each, in order. What it throws passes through.
using FileSink = std::function<void(const void* bytes, size_t size)>;
void write_file_atomic(const std::string& path, const std::function<void(const FileSink&)>& content);

}  // namespace gm
