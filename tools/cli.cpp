#include "tools/cli.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <new>
#include <system_error>

#include "engine/device.h"
#include "kernels/common/clock.h"
#include "kernels/common/error.h"

namespace gm {

namespace {
constexpr const char* kNoOutput = "cannot write to standard output";

/// A standard stream that the shell has closed (2>&-) would be the next file that is opened: messages would
/// go into results. They go nowhere instead; output cannot be written, as to a stream that is closed.
void keep_standard_streams() {
  constexpr int kModes[] = {O_RDONLY, O_RDONLY, O_WRONLY};  // by number: input, output, errors
  for (int fd = 0; fd < 3; ++fd)
    if (fcntl(fd, F_GETFD) == -1 && errno == EBADF && open("/dev/null", kModes[fd]) != fd)
      fail("cannot open /dev/null");
}

/// What is wrong with the arguments, in a line. CLI11 takes a word that is no subcommand for an argument that
/// comes too early, and says that a subcommand is missing.
std::string wrong_arguments(CLI::App& app, const CLI::ParseError& e, int argc, char** argv) {
  const std::string first = argc > 1 ? argv[1] : "";
  if (app.get_require_subcommand_min() == 0 || first.empty() || first[0] == '-') return e.what();
  std::string names;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (sub->get_name() == first) return e.what();
    names += (names.empty() ? "" : ", ") + sub->get_name();
  }
  return "'" + first + "' is not a subcommand; there are " + names;
}

/// CLI11 reads whole numbers as C does, 010 as 8, and what is too large as the largest: --seed 010 would not
/// be --set train.seed=010.
std::string check_decimal(std::string& text, bool is_signed) {
  const size_t sign = text.starts_with('-') || text.starts_with('+');
  if (text.size() == sign || text.find_first_not_of("0123456789", sign) != std::string::npos) return "";
  text.erase(sign, std::min(text.find_first_not_of('0', sign), text.size() - 1) - sign);
  uint64_t value = 0;
  const bool fits = std::from_chars(text.data() + sign, text.data() + text.size(), value).ec == std::errc() &&
                    (!is_signed || value <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()));
  return fits ? "" : "'" + text + "' is too large";
}

void read_decimals(CLI::App& app) {
  for (CLI::Option* option : app.get_options({})) {
    const std::string type = option->get_type_name();
    if (type.starts_with("INT") || type.starts_with("UINT"))
      option->transform(CLI::Validator(
          [is_signed = type[0] == 'I'](std::string& text) { return check_decimal(text, is_signed); }, ""));
  }
}

/// --device, --seed and --quiet are known to every command that does something: scripts give them to all.
/// Where one has nothing to change its value is checked all the same.
void complete_common_options(CLI::App& app) {
  auto lacks = [&](const char* name) { return app.get_option_no_throw(name) == nullptr; };
  if (app.get_require_subcommand_min() == 0) {
    auto ignore = [](const std::string&) {};
    const std::string help = "accepted as elsewhere, has no effect";
    if (lacks("--device"))
      app.add_option_function<std::string>("--device", ignore, help)->check(check_device);
    if (lacks("--seed"))
      app.add_option_function<int64_t>(
             "--seed", [](int64_t) {}, help)
          ->check(check_not_negative);
    if (lacks("--quiet"))
      app.add_flag_function(
          "--quiet", [](int64_t) {}, help);
  }
  read_decimals(app);
  for (CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; }))
    complete_common_options(*sub);
}
}  // namespace

int run_tool(CLI::App& app, int argc, char** argv, const std::function<void()>& body) {
  const std::string name = std::filesystem::path(argv[0]).filename().string();
  auto report = [&](std::string what, int code) {
    std::replace(what.begin(), what.end(), '\n', ' ');
    std::fprintf(stderr, "%s: error: %s\n", name.c_str(), what.c_str());
    return code;
  };
  std::signal(SIGXFSZ, SIG_IGN);  // beyond ulimit -f a write fails, as on a full disk
  try {
    keep_standard_streams();
    complete_common_options(app);
    app.parse(argc, argv);
    body();
    // A full disk or a closed pipe shows at the latest when the buffer is emptied.
    const bool written = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
    return written ? 0 : report(kNoOutput, 1);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);  // --help
    return report(wrong_arguments(app, e, argc, argv) + " (see " + name + " --help)", 2);
  } catch (const UsageError& e) {
    return report(e.what() + (" (see " + name + " --help)"), 2);
  } catch (const std::bad_alloc&) {
    return report("out of memory", 1);
  } catch (const std::system_error& e) {  // of fmt::print, which says "file"
    return report(std::ferror(stdout) ? std::string(kNoOutput) + ": " + e.code().message() : e.what(), 1);
  } catch (const std::exception& e) {
    return report(e.what(), 1);
  }
}

void say(const std::string& line) { std::fputs((line + '\n').c_str(), stderr); }

std::string check_device(const std::string& name) {
  const bool index = name.starts_with("cuda:") && name.size() > 5 && name.size() < 10 &&
                     name.find_first_not_of("0123456789", 5) == std::string::npos;
  if (name == "auto" || name == "cpu" || name == "cuda" || index) return "";
  return "'" + name + "' is not auto, cpu, cuda or cuda:INDEX";
}

std::string check_assignment(const std::string& text) {
  const size_t eq = text.find('=');
  return eq == std::string::npos || eq == 0 ? "'" + text + "' is not key=value, e.g. input.size=64" : "";
}

namespace {
bool finite_number(const std::string& text, double& value) {
  char* end = nullptr;
  value = std::strtod(text.c_str(), &end);
  return !text.empty() && *end == 0 && std::isfinite(value);
}
}  // namespace

std::string check_positive(const std::string& text) {
  double value = 0;
  return finite_number(text, value) && value > 0 ? "" : "'" + text + "' is not a number above 0";
}

std::string check_not_negative(const std::string& text) {
  double value = 0;
  return finite_number(text, value) && value >= 0 ? "" : "'" + text + "' is not a number from 0 on";
}

void add_device(CLI::App& app, std::string& device, int& threads, const std::string& of_threads) {
  app.add_option("--device", device, "auto, cpu, cuda or cuda:INDEX")
      ->capture_default_str()
      ->check(check_device);
  app.add_option("--threads", threads, of_threads)->capture_default_str()->check(CLI::Range(0, 4096));
}

CLI::Option* add_sets(CLI::App& app, std::vector<std::string>& sets, const std::string& help) {
  return app.add_option("--set", sets, help)->check(check_assignment)->allow_extra_args(false);
}

std::string device_line(const Device& device, const std::string& asked) {
  const bool explained = device.backend() == Backend::cpu && asked == "auto";
  return "device: " + device.description() + (explained ? " - " + no_cuda_reason() : "");
}

void make_folder(const std::string& path, const std::string& what) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) fail(path + ": cannot create the " + what + ": " + error.message());
}

void keep_inputs(const std::string& out, const std::vector<std::string>& inputs) {
  struct stat there {
  }, file{};
  if (::stat(out.c_str(), &there) != 0) return;
  for (const std::string& input : inputs)
    for (const std::string& name : {input, input + "/labels.csv"})
      if (::stat(name.c_str(), &file) == 0 && file.st_dev == there.st_dev && file.st_ino == there.st_ino)
        fail(out + ": is an input, which --out would replace; choose another name");
}

namespace {
std::atomic<bool> g_stop{false};
void on_signal(int) { g_stop = true; }
}  // namespace

const std::atomic<bool>& stop_on_signals() {
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  struct sigaction hang_up {};  // nohup has it ignored, and so it stays
  if (sigaction(SIGHUP, nullptr, &hang_up) == 0 && hang_up.sa_handler != SIG_IGN)
    std::signal(SIGHUP, on_signal);
  return g_stop;
}

Progress::Progress(bool wanted) : visible_(wanted && isatty(STDERR_FILENO)) {}

void Progress::update(double share, const std::string& before, const std::string& after) {
  if (!visible_ || seconds_now() - last_ < 0.1) return;
  last_ = seconds_now();
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

CountProgress::CountProgress(std::string label, int64_t total, bool wanted)
    : line_(wanted), label_(std::move(label)), total_(total), start_(seconds_now()) {}

void CountProgress::operator()(int64_t done) {
  char text[64];
  std::snprintf(text, sizeof text, "%lld/%lld  %.0f/s", static_cast<long long>(done),
                static_cast<long long>(total_),
                static_cast<double>(done) / std::max(1e-3, seconds_now() - start_));
  line_.update(static_cast<double>(done) / static_cast<double>(std::max<int64_t>(1, total_)), label_, text);
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
