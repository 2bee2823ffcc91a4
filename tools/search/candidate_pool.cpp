#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "data/csv.h"
#include "engine/atomic_file.h"
#include "engine/safetensors.h"
#include "kernels/common/backends.h"
#include "kernels/common/error.h"
#include "kernels/common/parallel.h"
#include "layers/count.h"
#include "tools/cli.h"
#include "tools/run_config.h"
#include "tools/search/candidate_process.h"
#include "tools/search/candidates.h"

namespace gm {

namespace fs = std::filesystem;

namespace {

std::optional<CandidateResult> read_result(const std::string& folder) {
  const std::string path = folder + "/result.json";
  if (!fs::exists(path)) return std::nullopt;
  const auto j = nlohmann::json::parse(read_file(path), nullptr, false);
  CandidateResult r;
  try {
    j.at("epochs").get_to(r.epochs);
    j.at("val_accuracy").get_to(r.val_accuracy);
    j.at("val_loss").get_to(r.val_loss);
    j.at("val_images").get_to(r.val_images);
    j.at("macs").get_to(r.macs);
    j.at("params").get_to(r.params);
    j.at("seconds").get_to(r.seconds);
  } catch (const nlohmann::json::exception&) {
    fail(path + ": not the result of a candidate; remove it to train again");
  }
  return r;
}

void write_result(const std::string& folder, const CandidateResult& r) {
  const nlohmann::ordered_json j{{"epochs", r.epochs},     {"val_accuracy", r.val_accuracy},
                                 {"val_loss", r.val_loss}, {"val_images", r.val_images},
                                 {"macs", r.macs},         {"params", r.params},
                                 {"seconds", r.seconds}};
  write_file_atomic(folder + "/result.json", j.dump(2) + "\n");
}

// Epochs that a run has behind it: lines of metrics.csv after the header.
int64_t epochs_done(const std::string& folder) {
  const std::string path = folder + "/metrics.csv";
  if (!fs::exists(path)) return 0;
  const std::string text = read_file(path);
  return std::max<int64_t>(0, std::count(text.begin(), text.end(), '\n') - 1);
}

// Whether early stopping has ended a run: its last checkpoint counts the epochs without a lower loss.
bool out_of_patience(const RunConfig& run, const std::string& folder) {
  if (run.train.patience == 0) return false;
  const TensorReader last(folder + "/last.safetensors");
  const auto counted = last.metadata().find("epochs_without_gain");
  int64_t epochs = 0;
  return counted != last.metadata().end() && parse_int(counted->second, epochs) &&
         epochs >= run.train.patience;
}

// What a finished run says of itself. Throws gm::Error when its files do not hold it.
CandidateResult collect(const Candidate& c, const std::string& folder, double seconds) {
  const RunConfig run = read_run_config(c.config, c.name);
  const CsvTable metrics(folder + "/metrics.csv"), split(folder + "/split.csv");
  CandidateResult r;
  r.epochs = metrics.rows();
  // gm_train also ends well when a signal stops it.
  if (r.epochs == 0 || (r.epochs < run.train.epochs && !out_of_patience(run, folder)))
    fail(fmt::format("stopped after {} of {} epochs", r.epochs, run.train.epochs));
  auto last = [&](const char* name, double& value) {
    const int column = metrics.column(name);
    if (column < 0 || !parse_double(metrics.cell(r.epochs - 1, column), value))
      fail(folder + "/metrics.csv: no number in the column " + name);
  };
  last("val_accuracy", r.val_accuracy);
  last("val_loss", r.val_loss);
  const int part = split.column("split");
  for (int64_t row = 0; part >= 0 && row < split.rows(); ++row)
    r.val_images += split.cell(row, part) == "val";
  const NetworkCount count = count_network(run.architecture);
  r.macs = count.macs;
  r.params = count.params_trainable;
  r.seconds = seconds;
  return r;
}

// Seconds that earlier processes spent on a candidate which they did not finish.
double earlier_seconds(const std::string& folder) {
  double seconds = 0;
  std::ifstream(folder + "/seconds.txt") >> seconds;
  return seconds;
}

/// The candidates of one call: which wait, which train, which have a result.
class Pool {
 public:
  Pool(const std::vector<Candidate>& candidates, const CandidateOptions& options)
      : candidates_(candidates),
        options_(options),
        trainer_(find_trainer(options)),
        results_(candidates.size()),
        progress_(!options.quiet) {
    const int threads = options.threads ? options.threads : available_processors();
    threads_ = std::max(1, threads / options.jobs);
    for (size_t i = 0; i < candidates.size(); ++i) {
      results_[i] = read_result(folder(i));
      if (results_[i] || static_cast<int>(i % static_cast<size_t>(options.parts)) != options.part) continue;
      waiting_.push_back(i);
    }
    mine_ = waiting_.size();
    if (const size_t done = count_results(); done && !options.quiet)
      fmt::print("{} of {} networks have a result already\n", done, candidates.size());
  }

  std::vector<std::optional<CandidateResult>> run(const std::atomic<bool>& stop) {
    while (!waiting_.empty() || !running_.empty()) {
      if (stop) {
        waiting_.clear();
        for (Running& r : running_) r.process->stop();
      }
      while (!waiting_.empty() && static_cast<int>(running_.size()) < options_.jobs) {
        const size_t i = waiting_.front();
        waiting_.pop_front();
        attempt(i, [&] { start(i); });
      }
      for (auto r = running_.begin(); r != running_.end();) {
        if (r->process->running()) {
          ++r;
          continue;
        }
        attempt(r->index, [&] { finish(*r, stop); });
        r = running_.erase(r);
      }
      show();
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    progress_.clear();
    // Others may have finished theirs in the meantime.
    for (size_t i = 0; i < results_.size(); ++i)
      if (!results_[i]) results_[i] = read_result(folder(i));
    if (failed_) fail(fmt::format("{} of {} networks failed", failed_, results_.size()));
    return std::move(results_);
  }

 private:
  struct Running {
    size_t index;
    std::unique_ptr<CandidateProcess> process;
  };

  std::string folder(size_t i) const { return candidate_folder(candidates_[i], options_); }
  size_t count_results() const {
    return static_cast<size_t>(std::count_if(results_.begin(), results_.end(), [](auto& r) { return !!r; }));
  }

  // A failure concerns this candidate alone.
  template <class F>
  void attempt(size_t i, F&& action) {
    try {
      action();
    } catch (const std::exception& e) {
      ++failed_;
      progress_.clear();
      std::fprintf(stderr, "%s failed: %s\n", candidates_[i].name.c_str(), e.what());
    }
  }

  void start(size_t i) {
    const std::string dir = folder(i);
    make_folder(dir);
    FolderLock lock(dir);
    if (!lock.held()) {
      if (!options_.quiet) fmt::print("{}: another process is training it\n", candidates_[i].name);
      return;
    }
    if ((results_[i] = read_result(dir))) return;  // finished elsewhere since we looked
    write_file_atomic(dir + "/candidate.yaml", candidate_text(candidates_[i]));
    const std::string threads = std::to_string(threads_);
    std::vector<std::string> command{trainer_,   dir + "/candidate.yaml", "--out",     dir,    "--quiet",
                                     "--device", options_.device,         "--threads", threads};
    const YAML::Node data = candidates_[i].config["data"];
    if (!data["workers"]) command.insert(command.end(), {"--set", "data.workers=" + threads});
    if (fs::exists(dir + "/last.safetensors")) command.push_back("--resume");
    running_.push_back({i, std::make_unique<CandidateProcess>(command, dir, std::move(lock))});
  }

  void finish(Running& r, bool stopping) {
    const std::string dir = folder(r.index);
    const double seconds = earlier_seconds(dir) + r.process->seconds();
    const std::string failure = r.process->failure();
    // For the call that goes on, should there be no result: a process that ended well may have been stopped.
    write_file_atomic(dir + "/seconds.txt", fmt::format("{:.1f}\n", seconds));
    // One that was told to stop may have been at its end; the next call finds out.
    if (stopping) return;
    if (!failure.empty()) fail(failure);
    results_[r.index] = collect(candidates_[r.index], dir, seconds);
    write_result(dir, *results_[r.index]);
    if (options_.quiet) return;
    progress_.clear();
    const CandidateResult& done = *results_[r.index];
    fmt::print("[{}/{}] {}: accuracy {:.4f}  loss {:.4f}  {:.2f} M MACs  {} parameters  {}\n",
               count_results(), results_.size(), candidates_[r.index].name, done.val_accuracy, done.val_loss,
               static_cast<double>(done.macs) * 1e-6, done.params, duration_text(done.seconds));
    std::fflush(stdout);
  }

  void show() {
    if (!progress_.visible() || Clock::now() - shown_ < std::chrono::milliseconds(500)) return;
    shown_ = Clock::now();
    double done = static_cast<double>(mine_ - waiting_.size() - running_.size());
    for (const Running& r : running_)
      done += static_cast<double>(epochs_done(folder(r.index))) /
              candidates_[r.index].config["train"]["epochs"].as<double>(30);
    const double elapsed = std::chrono::duration<double>(Clock::now() - started_).count();
    progress_.update(
        done / static_cast<double>(mine_), fmt::format("{}/{} networks", count_results(), results_.size()),
        fmt::format(
            "{} training{}", running_.size(),
            done > 0 ? "  ETA " + duration_text(elapsed * (static_cast<double>(mine_) / done - 1)) : ""));
  }

  using Clock = std::chrono::steady_clock;
  const std::vector<Candidate>& candidates_;
  const CandidateOptions& options_;
  std::string trainer_;
  int threads_ = 1;
  std::vector<std::optional<CandidateResult>> results_;
  std::deque<size_t> waiting_;
  std::vector<Running> running_;
  size_t mine_ = 0, failed_ = 0;
  Clock::time_point started_ = Clock::now(), shown_{};
  Progress progress_;
};

}  // namespace

std::vector<std::optional<CandidateResult>> train_candidates(const std::vector<Candidate>& candidates,
                                                             const CandidateOptions& options,
                                                             const std::atomic<bool>& stop) {
  check_candidates(candidates, options);
  make_folder(options.folder);
  if (::access(options.folder.c_str(), W_OK | X_OK) != 0)
    fail(options.folder + ": cannot write there: " + std::strerror(errno));
  install_cpu_kernels();
  return Pool(candidates, options).run(stop);
}

}  // namespace gm
