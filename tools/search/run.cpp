// gm_search run: ENAS with shared weights, random search with the same budget beside it.
#include <fmt/format.h>

#include <unistd.h>
#include <CLI/CLI.hpp>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>

#include "engine/atomic_file.h"
#include "kernels/common/clock.h"
#include "kernels/common/error.h"
#include "tools/cli.h"
#include "tools/run_folder.h"
#include "tools/search/arm.h"
#include "tools/search/commands.h"
#include "tools/search/finalists.h"
#include "tools/shell.h"
#include "tools/train_run.h"

namespace gm {

namespace {

namespace fs = std::filesystem;

struct Arguments {
  std::string config, data, out, device = "auto";
  std::vector<std::string> sets;
  int64_t seed = -1;
  int threads = 0, jobs = 1;
  bool resume = false, quiet = false;
};

// text: of the whole configuration; a resumed search must have the one it began with. Nothing is written
// before the folder is held.
FolderLock open_folder(const Arguments& a, const std::string& text) {
  std::error_code error;
  const std::string config = a.out + "/config.yaml";
  if (a.resume) {
    if (!fs::exists(config, error)) fail(a.out + ": no search to resume (no config.yaml)");
    if (read_file(config) != text)
      fail(a.config + ": differs from the search in " + a.out + "; resume it with " + config);
    return hold_run(a.out, "lock");
  }
  make_folder(a.out, "run folder");
  if (::access(a.out.c_str(), W_OK | X_OK) != 0)
    fail(a.out + ": cannot write there: " + std::strerror(errno));
  if (fs::exists(a.out + "/journal.jsonl", error) || fs::exists(config, error))
    fail(a.out + ": already holds a run; continue a search with --resume or choose another --out");
  FolderLock hold = hold_run(a.out, "lock");
  write_file_atomic(config, text);
  return hold;
}

int class_index(const std::vector<std::string>& classes, const std::string& name, const std::string& where) {
  for (size_t i = 0; i < classes.size(); ++i)
    if (classes[i] == name) return static_cast<int>(i);
  fail_unknown_class(where + ": search.class", name, classes);
}

// Training and validation images of a search, each enough for a batch.
Split search_split(const RunConfig& run, const Dataset& data) {
  Split split = split_of(run, data);
  for (const auto& [rows, name] : {std::pair{&split.train, "training"}, {&split.val, "validation"}})
    if (static_cast<int64_t>(rows->size()) < run.train.batch)
      fail(fmt::format("train.batch {} is larger than the {} set ({} images)", run.train.batch, name,
                       rows->size()));
  return split;
}

SearchSpace search_space(const SearchConfig& config, const std::string& path) {
  SearchSpace space(config.run.architecture, config.space);
  if (space.size() < 2) fail(path + ": search.space leaves nothing to choose");
  const int64_t least = network_size(space.smallest()).macs;
  if (config.space.max_macs > 0 && least > config.space.max_macs)
    fail(fmt::format("{}: search.max_macs {} is below the smallest network of the space ({} MACs)", path,
                     config.space.max_macs, least));
  return space;
}

ChildOptions child_options(const RunConfig& run) {
  OptimizerConfig optimizer = run.optimizer;  // every step is another network's
  optimizer.accumulate = 1;
  optimizer.average = 0;
  return {.batch = run.train.batch,
          .bf16 = run.train.bf16,
          .label_smoothing = run.train.label_smoothing,
          .optimizer = optimizer,
          .seed = static_cast<uint64_t>(run.train.seed)};
}

// split.csv, which must be the present split when a search is resumed.
void keep_split(const Arguments& args, const RunConfig& run, const Dataset& data, const Split& split) {
  const std::string file = args.out + "/split.csv";
  if (!args.resume || !fs::exists(file)) write_split(file, data, split);
  const Split begun = read_split(file, data, true);
  if (begun.train != split.train || begun.val != split.val)
    fail(file + ": not the split that this search would make: " + run.data_path + " has changed");
}

void log_beginning(Log& log, const Device& device, const RunConfig& run, const SearchSpace& space,
                   const SharedWeights& layout, const Split& split) {
  const NetworkSize base = network_size(space.base());
  log.line("device: " + device.description());
  log.line(fmt::format("space: {:.3g} choice vectors over {} stages; largest network {} parameters; {} px",
                       space.size(), space.stages(), layout.table().trainable_count(),
                       run.architecture.input_size));
  log.line(fmt::format("base: {} - {} parameters, {:.2f} M MACs", SearchSpace::text(space.base()),
                       base.parameters, 1e-6 * static_cast<double>(base.macs)));
  log.line(fmt::format("data: {} - {} training, {} validation, {} test images", run.data_path,
                       split.train.size(), split.val.size(), split.test.size()));
}

// The samplers of a search, which take turns: one iteration of each.
class Arms {
 public:
  // Each goes on from its state file where the search is resumed.
  Arms(SearchShared& shared, const Arguments& args) : shared_(shared), args_(args), progress_(!args.quiet) {
    shared.progress = [this] { show_progress(); };
    for (const std::string& name : shared.config.samplers) {
      arms_.push_back(std::make_unique<SearchArm>(shared, name, *controller_device_));
      if (args.resume) arms_.back()->resume();
      done_before_ += arms_.back()->work_done();
    }
  }

  // False when it was stopped.
  bool run(Log& log) {
    for (int64_t i = 0; i < shared_.config.iterations; ++i)
      for (const auto& arm : arms_) {
        if (arm->iteration() > i) continue;
        running_ = arm.get();
        const bool whole = arm->iterate();
        progress_.clear();
        if (!whole) {
          log.line(
              fmt::format("stopped in iteration {} of {}. Resume with: gm_search run {} --out {} --resume{}",
                          i + 1, arm->name(), shell_word(args_.out + "/config.yaml"), shell_word(args_.out),
                          args_.device == "auto" ? "" : " --device " + args_.device));
          return false;
        }
        log.line(fmt::format("{:<8} {:>4}/{}  loss {:.4f}  mean reward {:.4f}  {}", arm->name(), i + 1,
                             shared_.config.iterations, arm->loss(), arm->mean_reward(), arm->status()));
      }
    const ChildCache& cache = shared_.cache;
    log.line(
        fmt::format("networks built: {}, {:.1f} ms each; wall time {}", cache.built(),
                    1e3 * cache.build_seconds() / static_cast<double>(std::max<int64_t>(1, cache.built())),
                    duration_text(seconds_now() - start_)));
    return true;
  }

  // The late networks of every sampler, scored anew on all whole batches of the validation images.
  std::vector<Finalist> finalists() {
    const auto all = minibatches(shared_.scoring, 0, shared_.scoring.batches());
    return choose_finalists(shared_.config, shared_.space, shared_.journal,
                            [&](const std::string& sampler, const ChoiceVector& c) {
                              for (const auto& arm : arms_)
                                if (arm->name() == sampler) {
                                  const SearchArm::Score s = arm->score(c, all);
                                  return std::pair(s.metric, s.reward);
                                }
                              fail("no sampler " + sampler);
                            });
  }

 private:
  void show_progress() {
    const SearchConfig& config = shared_.config;
    int64_t done = 0;
    for (const auto& arm : arms_) done += arm->work_done();
    const int64_t all = SearchArm::work(config) * static_cast<int64_t>(arms_.size());
    const JournalEntry* best = nullptr;
    for (const JournalEntry& e : shared_.journal.entries())
      if (!best || e.reward > best->reward) best = &e;
    const double rate = static_cast<double>(done - done_before_) / std::max(1e-3, seconds_now() - start_);
    progress_.update(
        static_cast<double>(done) / static_cast<double>(all),
        fmt::format("{} {}/{}", running_->name(), running_->iteration() + 1, config.iterations),
        (best ? fmt::format("best {:.4f} ({} {:.4f}, {:.1f} M MACs)  ", best->reward, config.reward.metric,
                            best->score, 1e-6 * static_cast<double>(best->macs))
              : std::string()) +
            fmt::format("ETA {}", duration_text(static_cast<double>(all - done) / rate)));
  }

  SearchShared& shared_;
  const Arguments& args_;
  // Thousands of tiny steps: one thread is fastest.
  std::unique_ptr<Device> controller_device_ = open_device("cpu", {.threads = 1});
  std::vector<std::unique_ptr<SearchArm>> arms_;
  Progress progress_;
  const double start_ = seconds_now();
  const SearchArm* running_ = nullptr;
  int64_t done_before_ = 0;  // by the searches that this one resumes
};

// The part with shared weights, up to the choice of finalists. False when it was stopped.
bool search_networks(const Arguments& args, const SearchConfig& config, const std::string& text) {
  // Everything is checked before the first file is written.
  const RunConfig& run = config.run;
  auto device = open_device(
      args.device,
      {.threads = args.threads, .deterministic = run.train.deterministic, .tf32 = run.train.tf32});
  auto data = open_training_data(run, "has 1 class; a search needs at least two");
  const Split split = search_split(run, *data);
  const SearchSpace space = search_space(config, args.config);
  const int metric_class = config.reward.class_name.empty()
                               ? -1
                               : class_index(data->classes(), config.reward.class_name, args.config);
  LoaderConfig loading{.batch = run.train.batch,
                       .transform = run.transform,
                       .training = true,
                       .seed = static_cast<uint64_t>(run.train.seed),
                       .workers = run.workers,
                       .cache = std::make_shared<ImageCache>(data, run.cache_bytes)};
  Loader training(data, split.train, loading);
  loading.augment = false;
  Loader scoring(data, split.val, loading);
  const SharedWeights layout(space, 0);
  ChildCache cache(*device, space, layout, child_options(run), static_cast<size_t>(config.cache));

  const FolderLock hold = open_folder(args, text);
  Journal journal(args.out + "/journal.jsonl");
  Log log(args.out + "/log.txt", args.resume, args.quiet);
  keep_split(args, run, *data, split);
  log_beginning(log, *device, run, space, layout, split);

  SearchShared shared{config,  space,    training,     scoring,           cache,
                      journal, args.out, metric_class, stop_on_signals(), {}};
  Arms arms(shared, args);
  if (!arms.run(log)) return false;
  if (!fs::exists(args.out + "/finalists.json")) write_finalists(args.out, arms.finalists());
  return true;
}

void log_finalists(const SearchConfig& config, const std::string& folder, const CandidateOptions& options) {
  const double start = seconds_now();
  const SearchSpace space(config.run.architecture, config.space);
  const Journal journal(folder + "/journal.jsonl");
  Log log(folder + "/log.txt", true, options.quiet);
  for (const std::string& line : train_finalists(config, space, journal, folder, options, stop_on_signals()))
    log.line(line);
  log.line("wall time of training from scratch: " + duration_text(seconds_now() - start));
}

void search(Arguments args) {
  if (args.seed >= 0) args.sets.push_back("train.seed=" + std::to_string(args.seed));
  YAML::Node yaml = load_config(args.config, args.sets);
  set_path(yaml, "data", "path", args.data);
  const std::string text = config_text(yaml);
  const SearchConfig config = read_search_config(yaml, args.config);
  if (config.run.data_path.empty()) fail("no data: give --data PATH or data.path in " + args.config);
  if (args.out.empty()) throw UsageError("--out DIR is required: the folder of the search");
  const CandidateOptions options{
      .jobs = args.jobs, .threads = args.threads, .device = args.device, .quiet = args.quiet};
  find_trainer(options);
  if (search_networks(args, config, text)) log_finalists(config, args.out, options);
}

}  // namespace

std::function<bool()> declare_search_run(CLI::App& app) {
  auto a = std::make_shared<Arguments>();
  CLI::App* run =
      app.add_subcommand("run",
                         "search with shared weights: ENAS, and chance with the same budget; then train the "
                         "best from scratch");
  run->add_option("config", a->config, "base network, recipe and space (YAML)")->required();
  run->add_option("--data", a->data, "Galaxy10-layout .h5, catalog .csv or folder with labels.csv");
  run->add_option("--out", a->out, "folder of the search");
  add_sets(*run, a->sets, "override one key, e.g. --set search.iterations=20");
  run->add_flag("--resume", a->resume, "continue the search in --out");
  add_device(*run, a->device, a->threads);
  run->add_option("--jobs", a->jobs, "of the best networks, as many train at the same time")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  run->add_option("--seed", a->seed, "same as --set train.seed=N")->check(check_not_negative);
  run->add_flag("--quiet", a->quiet, "print errors only");
  return [a, run] {
    if (run->parsed()) search(*a);
    return run->parsed();
  };
}

std::function<bool()> declare_search_finalists(CLI::App& app) {
  struct Finish {
    std::string folder;
    CandidateOptions options;
  };
  auto a = std::make_shared<Finish>();
  CLI::App* command = app.add_subcommand(
      "finalists", "train the best networks of a finished search from scratch, also on several machines");
  command->add_option("folder", a->folder, "folder of the search")->required();
  declare_candidate_options(*command, a->options);
  return [a, command] {
    if (!command->parsed()) return false;
    const std::string path = a->folder + "/config.yaml";
    const SearchConfig config = read_search_config(load_config(path, {}), path);
    read_finalists(a->folder);  // before the log is opened
    log_finalists(config, a->folder, a->options);
    return true;
  };
}

}  // namespace gm
