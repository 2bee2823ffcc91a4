#include "engine/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

#include "kernels/common/error.h"

namespace gm {

std::string read_file(const std::string& path) {
  std::error_code none;
  if (std::filesystem::is_directory(path, none)) fail(path + ": is a folder, expected a file");
  std::ifstream in(path, std::ios::binary);
  if (!in) fail(path + ": cannot open: " + std::strerror(errno));
  return {std::istreambuf_iterator<char>(in), {}};
}

namespace {

constexpr size_t kRandomDigits = 16;
std::string before_digits(const std::filesystem::path& p) { return "." + p.stem().string() + ".tmp"; }

}  // namespace

std::string temporary_name(const std::string& path) {
  // Not from the process's number: other hosts and containers that share the folder have the same ones.
  std::random_device random;
  char digits[kRandomDigits + 1];
  std::snprintf(digits, sizeof digits, "%08x%08x", random(), random());
  const std::filesystem::path p(path);
  return (p.parent_path() / (before_digits(p) + digits + p.extension().string())).string();
}

void remove_unfinished(const std::string& path) {
  namespace fs = std::filesystem;
  const fs::path file = fs::absolute(written_file(path));
  const std::string begin = before_digits(file), end = file.extension().string();
  std::error_code none;
  std::vector<fs::path> left;
  for (fs::directory_iterator at(file.parent_path(), none), last; !none && at != last; at.increment(none)) {
    const std::string name = at->path().filename().string();
    if (name.size() == begin.size() + kRandomDigits + end.size() && name.starts_with(begin) &&
        name.ends_with(end) &&
        name.find_first_not_of("0123456789abcdef", begin.size()) >= begin.size() + kRandomDigits)
      left.push_back(at->path());
  }
  for (const fs::path& name : left) fs::remove(name, none);
}

std::string written_file(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code none;
  const fs::file_status status = fs::status(path, none);
  if (fs::is_directory(status)) fail(path + ": cannot write: is a folder");
  if (fs::exists(status) && !fs::is_regular_file(status)) fail(path + ": cannot write: is no regular file");
  fs::path file = path;
  constexpr int kMostLinks = 40;  // as Linux follows
  for (int links = 0; fs::is_symlink(fs::symlink_status(file, none)); ++links) {
    if (links == kMostLinks) fail(path + ": cannot write: " + std::strerror(ELOOP));
    const fs::path to = fs::read_symlink(file, none);
    if (none) break;
    file = file.parent_path() / to;
  }
  return file.string();
}

namespace {

// Puts a rename on disk. Folders that cannot be opened or synced (some network file systems) are left alone.
void sync_folder(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  const int fd = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  const int reason = ::fsync(fd) == 0 ? 0 : errno;
  ::close(fd);
  if (reason == EIO) fail(path + ": cannot write: " + std::strerror(reason));
}

[[noreturn]] void fail_to_write(const std::string& temporary, const std::string& path, int reason) {
  ::unlink(temporary.c_str());
  fail(path + ": cannot write: " + std::strerror(reason));
}
void rename_written(const std::string& temporary, const std::string& path) {
  if (std::rename(temporary.c_str(), path.c_str()) != 0) fail_to_write(temporary, path, errno);
  sync_folder(path);
}
/// On network file systems what could not be written may show here only.
void sync_and_close(int fd, const std::string& temporary, const std::string& path) {
  int reason = ::fsync(fd) == 0 ? 0 : errno;
  if (::close(fd) != 0 && !reason && errno != EINTR) reason = errno;
  if (reason) fail_to_write(temporary, path, reason);
}

}  // namespace

void commit_file(const std::string& temporary, const std::string& path) {
  const int fd = ::open(temporary.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail_to_write(temporary, path, errno);
  sync_and_close(fd, temporary, path);
  rename_written(temporary, path);
}

PendingFile::PendingFile(const std::string& path) : path_(written_file(path)), name_(temporary_name(path_)) {}

PendingFile::~PendingFile() {
  if (pending_) ::unlink(name_.c_str());
}

void PendingFile::copy(const std::string& from) {
  std::error_code error;
  std::filesystem::copy_file(from, name_, error);
  if (error) fail(path_ + ": cannot write: " + error.message());
}

void PendingFile::commit(const std::string& name) {
  commit_file(name_, name.empty() ? path_ : name);
  pending_ = false;
}

void write_file_atomic(const std::string& path, const std::function<void(const FileSink&)>& content) {
  const std::string file = written_file(path);
  std::string name;
  int fd;
  do {
    name = temporary_name(file);
    fd = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (fd < 0 && errno == EEXIST);
  if (fd < 0) fail(path + ": cannot write: " + std::strerror(errno));
  try {
    content([&](const void* bytes, size_t size) {
      const char* at = static_cast<const char*>(bytes);
      while (size > 0) {
        const ssize_t done = ::write(fd, at, size);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) fail(path + ": cannot write: " + std::strerror(errno));
        at += done;
        size -= static_cast<size_t>(done);
      }
    });
  } catch (...) {
    ::close(fd);
    ::unlink(name.c_str());
    throw;
  }
  sync_and_close(fd, name, path);
  rename_written(name, file);
}

void write_file_atomic(const std::string& path, const void* bytes, size_t size) {
  write_file_atomic(path, [&](const FileSink& write) { write(bytes, size); });
}

void write_file_atomic(const std::string& path, const std::string& text) {
  write_file_atomic(path, text.data(), text.size());
}

}  // namespace gm
