// A folder that one process at a time works in.
#pragma once
#include <string>

namespace gm {

/// An exclusive hold on a folder by a file in it, `lock`. The system ends it with the last process that has
/// the file open, so none is left behind by a kill. On file systems without locks it always succeeds.
class FolderLock {
 public:
  /// Waits for whoever has it, or does not. Throws gm::Error when the file cannot be written.
  explicit FolderLock(const std::string& folder, bool wait = false, const std::string& name = "lock");
  ~FolderLock();
  FolderLock(FolderLock&& other) noexcept : fd_(other.fd_), held_(other.held_) { other.fd_ = -1; }
  FolderLock& operator=(FolderLock&&) = delete;
  /// False: another process has it.
  bool held() const { return held_; }
  int descriptor() const { return fd_; }

 private:
  int fd_ = -1;
  bool held_ = false;
};

}  // namespace gm
