// One gm_train process in a folder that nobody else may train in at the same time.
#pragma once
#include <sys/types.h>

#include <chrono>
#include <string>
#include <vector>

namespace gm {

/// An exclusive hold on a folder by the file FOLDER/lock. The system ends it with the last process that has
/// the file open, so none is left behind by a kill. On file systems without locks it always succeeds.
class FolderLock {
 public:
  /// Throws gm::Error when the file cannot be written.
  explicit FolderLock(const std::string& folder);
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

class CandidateProcess {
 public:
  /// Runs `command` with standard error in FOLDER/stderr.txt and standard output dropped. It shares the lock
  /// and gets SIGTERM when this process dies. Throws gm::Error when no process can be started.
  CandidateProcess(const std::vector<std::string>& command, const std::string& folder, FolderLock lock);
  /// Kills what still runs.
  ~CandidateProcess();
  CandidateProcess(const CandidateProcess&) = delete;
  CandidateProcess& operator=(const CandidateProcess&) = delete;

  bool running();
  /// Asks it to write a checkpoint and end; repeated at most once a second.
  void stop();
  /// After its end: "" on success, else its last line on standard error, or how it ended.
  std::string failure() const;
  double seconds() const;

 private:
  using Clock = std::chrono::steady_clock;
  std::string program_, folder_;
  FolderLock lock_;
  Clock::time_point started_ = Clock::now(), ended_{}, asked_{};
  pid_t pid_ = -1;
  int status_ = 0;
  bool done_ = false;
};

}  // namespace gm
