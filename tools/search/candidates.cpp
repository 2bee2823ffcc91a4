#include "tools/search/candidates.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <set>

#include "data/csv.h"
#include "data/dataset.h"
#include "engine/atomic_file.h"
#include "kernels/common/error.h"
#include "tools/cli.h"
#include "tools/run_config.h"
#include "tools/train_run.h"

namespace gm {

namespace fs = std::filesystem;

std::string candidate_folder(const Candidate& c, const CandidateOptions& o) {
  return o.folder + "/" + c.name;
}

std::string candidate_text(const Candidate& c) { return config_text(c.config); }

std::string find_trainer(const CandidateOptions& o) {
  const std::string path = o.trainer.empty()
                               ? (fs::read_symlink("/proc/self/exe").parent_path() / "gm_train").string()
                               : o.trainer;
  if (::access(path.c_str(), X_OK) != 0) fail(path + ": not there, or not a program");
  return path;
}

void set_budget(YAML::Node config, const CandidateBudget& budget) {
  config["train"]["epochs"] = budget.epochs;
  if (budget.seed >= 0) config["train"]["seed"] = budget.seed;
}

Interval CandidateResult::accuracy_interval() const {
  return wilson_interval(std::llround(val_accuracy * static_cast<double>(val_images)), val_images);
}

void declare_candidate_options(CLI::App& command, CandidateOptions& o) {
  command.add_option("--jobs", o.jobs, "networks trained at the same time, each by a process of its own")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  add_device(command, o.device, o.threads, "CPU threads of all jobs together; 0: all");
  command.add_option_function<std::string>(
      "--only",
      [&o](const std::string& text) {
        const size_t slash = std::min(text.find('/'), text.size());
        int64_t part = 0, parts = 0;
        if (!parse_int(text.substr(0, slash), part) || slash == text.size() ||
            !parse_int(text.substr(slash + 1), parts) || part < 0 || part >= parts ||
            parts > std::numeric_limits<int>::max())
          throw CLI::ValidationError("--only", "'" + text + "' is not I/N with 0 <= I < N");
        o.part = static_cast<int>(part);
        o.parts = static_cast<int>(parts);
      },
      "I/N: train every N-th network, starting with number I (from 0), and leave the rest to other machines");
  command.add_flag("--quiet", o.quiet, "print errors only");
}

void declare_budget_options(CLI::App& command, CandidateBudget& b) {
  command.add_option("--epochs", b.epochs, "epochs for every network")
      ->capture_default_str()
      ->check(check_positive);
  command.add_option("--seed", b.seed, "same as --set train.seed=N")->check(check_not_negative);
}

void check_candidates(const std::vector<Candidate>& candidates, const CandidateOptions& options) {
  find_trainer(options);
  std::set<std::string> names, paths;
  for (const Candidate& c : candidates) {
    if (c.name.empty() || c.name[0] == '.' || !std::all_of(c.name.begin(), c.name.end(), [](unsigned char x) {
          return std::isalnum(x) || x == '.' || x == '_' || x == '-';
        }))
      fail("'" + c.name + "' is not a name for a candidate (letters, digits, '.', '_', '-')");
    if (!names.insert(c.name).second) fail("two candidates are called " + c.name);
    const RunConfig run = read_run_config(c.config, c.name);
    if (run.data_path.empty()) fail("no data: give --data PATH or data.path in the configuration");
    if (paths.insert(run.data_path).second) open_training_data(run);
    const std::string file = candidate_folder(c, options) + "/candidate.yaml";
    if (fs::exists(file) && read_file(file) != candidate_text(c))
      fail(file + ": is another configuration of that name; choose another --out");
  }
}

std::string missing_text(const std::vector<std::optional<CandidateResult>>& results) {
  const auto missing = std::count(results.begin(), results.end(), std::nullopt);
  return missing ? fmt::format("{} of {} networks are still to be trained", missing, results.size()) : "";
}

}  // namespace gm
