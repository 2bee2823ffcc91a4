// The folder of one training run and its log.
#pragma once
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "engine/folder_lock.h"

namespace gm {

/// Throws gm::Error where a run, of gm_train or gm_search, has begun in `folder`.
void expect_no_run(const std::string& folder);

/// Creates the folder, or checks that a run can be resumed from it. Throws gm::Error when it cannot be
/// written, when a new run would overwrite another run's checkpoint, or when there is nothing to resume.
class RunFolder {
 public:
  RunFolder(const std::string& path, bool resume);
  std::string file(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

/// The files of the run whose folder, or whose weights, `model` is: what no output may replace.
std::vector<std::string> run_files(const std::string& model);

/// A hold on the run in `folder` for the process that writes to it, by its log.txt or another file. Throws
/// gm::Error when another process has it.
FolderLock hold_run(const std::string& folder, const std::string& file = "log.txt");

/// Begins the line of log.txt that holds the command of the run; one more with every resumption.
inline constexpr std::string_view kCommandInLog = "command: ";

/// Lines go to log.txt and, unless quiet, to standard output.
class Log {
 public:
  Log(const std::string& path, bool append, bool quiet);
  void line(const std::string& text);

 private:
  std::ofstream file_;
  bool quiet_;
};

}  // namespace gm
