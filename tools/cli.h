// What every command-line tool shares: exit codes, one-line errors, a progress line.
#pragma once
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <exception>
#include <functional>
#include <new>
#include <string>

#include "kernels/common/error.h"

namespace gm {

/// Parses and runs. Exit codes: 0 success and --help, 1 a failure, 2 a usage error; failures and usage errors
/// are one line on stderr.
inline int run_tool(CLI::App& app, int argc, char** argv, const std::function<void()>& body) {
  auto report = [](std::string line, int code) {
    for (char& c : line)
      if (c == '\n') c = ' ';
    std::fprintf(stderr, "error: %s\n", line.c_str());
    return code;
  };
  try {
    app.parse(argc, argv);
    body();
    // A full disk or a closed pipe shows at the latest when the buffer is emptied.
    if (std::fflush(stdout) != 0) return report("cannot write to standard output", 1);
    return 0;
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    return report(std::string(error.what()) + " (see --help)", 2);
  } catch (const std::bad_alloc&) {
    return report("out of memory", 1);
  } catch (const std::exception& error) {
    return report(error.what(), 1);
  }
}

/// "synth 1200/5000 24 % 310/s", rewritten in place on stderr; silent when that is not a terminal or with
/// --quiet.
class Progress {
 public:
  Progress(std::string label, int64_t total, bool quiet)
      : label_(std::move(label)),
        total_(total),
        on_(!quiet && ::isatty(STDERR_FILENO)),
        start_(Clock::now()) {}
  ~Progress() {
    if (on_ && shown_) std::fprintf(stderr, "\r\033[K");
  }
  void operator()(int64_t done) {
    auto now = Clock::now();
    if (!on_ || (shown_ && now - last_ < std::chrono::milliseconds(100))) return;
    double seconds = std::chrono::duration<double>(now - start_).count();
    std::fprintf(stderr, "\r\033[K%s %lld/%lld %d %% %.0f/s", label_.c_str(), static_cast<long long>(done),
                 static_cast<long long>(total_), static_cast<int>(100 * done / std::max<int64_t>(1, total_)),
                 static_cast<double>(done) / std::max(1e-3, seconds));
    last_ = now;
    shown_ = true;
  }

 private:
  using Clock = std::chrono::steady_clock;
  std::string label_;
  int64_t total_;
  bool on_, shown_ = false;
  Clock::time_point start_, last_;
};

}  // namespace gm
