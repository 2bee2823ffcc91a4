#include "tools/cli.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <new>

#include "kernels/common/error.h"

namespace gm {

int run_tool(int argc, char** argv, const std::function<void(int, char**)>& body) {
  const std::string name = std::filesystem::path(argv[0]).filename().string();
  auto report = [&](const std::string& what, int code) {
    std::fprintf(stderr, "%s: error: %s\n", name.c_str(), what.c_str());
    return code;
  };
  try {
    body(argc, argv);
    return std::fflush(stdout) == 0 ? 0 : report("cannot write to standard output", 1);
  } catch (const CLI::Success&) {  // --help, printed by parse_arguments
    return 0;
  } catch (const CLI::ParseError& e) {
    return report(std::string(e.what()) + " (see " + name + " --help)", 2);
  } catch (const std::bad_alloc&) {
    return report("out of memory", 1);
  } catch (const std::exception& e) {
    return report(e.what(), 1);
  }
}

void parse_arguments(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    app.exit(help);
    throw;
  }
}

namespace {
double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
}  // namespace

Progress::Progress(bool wanted) : visible_(wanted && isatty(STDERR_FILENO)) {}

void Progress::update(double share, const std::string& before, const std::string& after) {
  if (!visible_ || now() - last_ < 0.1) return;
  last_ = now();
  winsize size{};
  const int width = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
  const int filled = static_cast<int>(std::lround(20 * share));
  std::string bar;
  for (int i = 0; i < 20; ++i) bar += i < filled ? '#' : '.';
  std::string line = before + " [" + bar + "] " + after;
  if (static_cast<int>(line.size()) > width - 1) line.resize(width - 1);
  std::fprintf(stderr, "\r\033[K%s", line.c_str());
  std::fflush(stderr);
  drawn_ = true;
}

void Progress::clear() {
  if (!drawn_) return;
  std::fprintf(stderr, "\r\033[K");
  std::fflush(stderr);
  drawn_ = false;
}

std::string duration_text(double seconds) {
  char text[48];
  const long s = std::lround(std::max(0.0, seconds));
  if (s < 60)
    std::snprintf(text, sizeof text, "%ld s", s);
  else if (s < 3600)
    std::snprintf(text, sizeof text, "%ld min %02ld s", s / 60, s % 60);
  else
    std::snprintf(text, sizeof text, "%ld h %02ld min", s / 3600, s / 60 % 60);
  return text;
}

}  // namespace gm
