// What every gm_* tool shares: exit codes, error lines, a progress line.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/common/error.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace gm {

class Device;

/// Arguments that do not go together: a usage error that only the body finds.
struct UsageError : Error {
  using Error::Error;
};

/// Parses the arguments and runs the body. Returns 0 on success and for --help, 2 after a usage error, 1
/// after a failure; each error is one line on standard error, starting with the tool's name.
int run_tool(CLI::App& app, int argc, char** argv, const std::function<void()>& body);

/// A line for people on standard error. One that cannot be written there (a full disk) ends no tool.
void say(const std::string& line);

/// Checks of option values: what is wrong, or "". --device is auto, cpu, cuda or cuda:INDEX, --set key=value.
std::string check_device(const std::string& name);
std::string check_assignment(const std::string& text);
/// Numbers, finite ones, above 0 or from 0 on.
std::string check_positive(const std::string& text);
std::string check_not_negative(const std::string& text);
/// --device and --threads; 0 threads: all.
void add_device(CLI::App& app, std::string& device, int& threads,
                const std::string& of_threads = "CPU threads; 0: all");
/// --set key=value, one each time it is given.
CLI::Option* add_sets(CLI::App& app, std::vector<std::string>& sets, const std::string& help);

/// "device: " and what a tool runs on; where --device auto (`asked`) came to the CPU, also why no card is
/// used.
std::string device_line(const Device& device, const std::string& asked);

/// Creates a folder and those above it, where they are not there yet. `what` it is, in the error when it
/// cannot be created: "PATH: cannot create the folder: REASON".
void make_folder(const std::string& path, const std::string& what = "folder");

/// Fails where writing `out` would replace one of the inputs, files that may go by other names.
void keep_inputs(const std::string& out, const std::vector<std::string>& inputs);

/// Set by SIGINT, SIGTERM and, unless it is ignored (nohup), SIGHUP from the first call on.
const std::atomic<bool>& stop_on_signals();

/// One line that redraws itself on a terminal; silent when standard error is not a terminal.
class Progress {
 public:
  explicit Progress(bool wanted = true);
  ~Progress() { clear(); }
  /// share in [0, 1]; redrawn at most ten times a second.
  void update(double share, const std::string& before, const std::string& after);
  void clear();
  bool visible() const { return visible_; }

 private:
  bool visible_, drawn_ = false;
  double last_ = -1;
};

/// Progress of a known number of items: "packing [####....] 1200/5000  310/s".
class CountProgress {
 public:
  CountProgress(std::string label, int64_t total, bool wanted = true);
  void operator()(int64_t done);

 private:
  Progress line_;
  std::string label_;
  int64_t total_;
  double start_;
};

/// "45 s", "3 min 20 s", "2 h 05 min"
std::string duration_text(double seconds);

}  // namespace gm
