#include "tools/search/candidate_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "kernels/common/error.h"

namespace gm {

CandidateProcess::CandidateProcess(const std::vector<std::string>& command, const std::string& folder,
                                   FolderLock lock)
    : program_(std::filesystem::path(command[0]).filename()), folder_(folder), lock_(std::move(lock)) {
  const int errors = ::open((folder + "/stderr.txt").c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (errors < 0) fail(folder + "/stderr.txt: cannot write: " + std::strerror(errno));
  const int nothing = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  std::vector<char*> arguments;
  for (const std::string& a : command) arguments.push_back(const_cast<char*>(a.c_str()));
  arguments.push_back(nullptr);
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ == 0) {  // only calls that are safe after fork
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) ::_exit(127);
    ::dup2(nothing, STDIN_FILENO);
    ::dup2(nothing, STDOUT_FILENO);
    ::dup2(errors, STDERR_FILENO);
    ::fcntl(lock_.descriptor(), F_SETFD, 0);
    ::execv(arguments[0], arguments.data());
    ::_exit(127);
  }
  const int reason = errno;
  ::close(errors);
  if (nothing >= 0) ::close(nothing);
  if (pid_ < 0) fail(command[0] + ": cannot start: " + std::strerror(reason));
}

CandidateProcess::~CandidateProcess() {
  if (done_) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, &status_, 0);
}

bool CandidateProcess::running() {
  if (!done_ && ::waitpid(pid_, &status_, WNOHANG) == pid_) {
    done_ = true;
    ended_ = Clock::now();
  }
  return !done_;
}

void CandidateProcess::stop() {
  // Again every second: a signal that arrives before the program has taken over is lost.
  if (done_ || Clock::now() - asked_ < std::chrono::seconds(1)) return;
  asked_ = Clock::now();
  ::kill(pid_, SIGTERM);
}

std::string CandidateProcess::failure() const {
  if (WIFEXITED(status_) && WEXITSTATUS(status_) == 0) return "";
  std::string last, line;
  std::ifstream errors(folder_ + "/stderr.txt");
  while (std::getline(errors, line))
    if (!line.empty()) last = line;
  const std::string prefix = program_ + ": error: ";
  if (last.starts_with(prefix)) last.erase(0, prefix.size());
  if (WIFSIGNALED(status_))
    return program_ + " was killed by signal " + std::to_string(WTERMSIG(status_)) + " (" +
           ::strsignal(WTERMSIG(status_)) + ")";
  return last.empty() ? program_ + " ended with exit code " + std::to_string(WEXITSTATUS(status_)) : last;
}

double CandidateProcess::seconds() const {
  return std::chrono::duration<double>((done_ ? ended_ : Clock::now()) - started_).count();
}

}  // namespace gm
