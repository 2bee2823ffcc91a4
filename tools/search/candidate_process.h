// One gm_train process in a folder that nobody else may train in at the same time.
#pragma once
#include <sys/types.h>

#include <chrono>
#include <string>
#include <vector>

#include "engine/folder_lock.h"

namespace gm {

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
