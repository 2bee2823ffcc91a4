#include "tools/run_folder.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "kernels/common/error.h"
#include "tools/cli.h"

namespace gm {

namespace fs = std::filesystem;

void expect_no_run(const std::string& folder) {
  std::error_code error;
  for (const char* sign : {"last.safetensors", "best.safetensors", "folds.csv", "stage1", "journal.jsonl"})
    if (fs::exists(folder + "/" + sign, error))
      fail(folder + ": already holds a run (" + sign +
           "); continue it with --resume or choose another --out");
}

RunFolder::RunFolder(const std::string& path, bool resume) : path_(path) {
  std::error_code error;
  if (resume) {
    if (!fs::exists(file("last.safetensors"), error)) fail(path + ": no last.safetensors to resume from");
    return;
  }
  make_folder(path, "run folder");
  if (::access(path.c_str(), W_OK | X_OK) != 0) fail(path + ": cannot write there: " + std::strerror(errno));
  expect_no_run(path);
}

std::vector<std::string> run_files(const std::string& model) {
  std::error_code none;
  const fs::path folder = fs::is_directory(model, none) ? fs::path(model) : fs::path(model).parent_path();
  std::vector<std::string> files{model};
  for (const char* name :
       {"config.yaml", "split.csv", "metrics.csv", "log.txt", "last.safetensors", "best.safetensors"})
    files.push_back((folder / name).string());
  return files;
}

FolderLock hold_run(const std::string& folder, const std::string& file) {
  FolderLock hold(folder, false, file);
  if (!hold.held()) fail(folder + ": another process is at work on this run");
  return hold;
}

Log::Log(const std::string& path, bool append, bool quiet)
    : file_(path, append ? std::ios::app : std::ios::trunc), quiet_(quiet) {
  if (!file_) fail(path + ": cannot write: " + std::strerror(errno));
}

void Log::line(const std::string& text) {
  file_ << text << std::endl;  // flushed: the log must survive a kill
  if (!quiet_) std::printf("%s\n", text.c_str()), std::fflush(stdout);
}

}  // namespace gm
