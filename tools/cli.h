// What every gm_* tool shares: exit codes, error lines, a progress line.
#pragma once
#include <functional>
#include <string>

namespace CLI {
class App;
}

namespace gm {

/// Runs a tool's body. Returns 0 on success and for --help, 2 after a usage error, 1 after a failure; each
/// error is one line on standard error, starting with the tool's name.
int run_tool(int argc, char** argv, const std::function<void(int, char**)>& body);

/// app.parse with --help printed here, where the app is known. run_tool handles what it throws.
void parse_arguments(CLI::App& app, int argc, char** argv);

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

/// "45 s", "3 min 20 s", "2 h 05 min"
std::string duration_text(double seconds);

}  // namespace gm
