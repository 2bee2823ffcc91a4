// gm_train CONFIG.yaml --data PATH --out DIR: trains a network and writes a run folder.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <ctime>
#include <filesystem>
#include <sstream>

#include "tools/cli.h"
#include "tools/cross_validation.h"
#include "tools/resumed_config.h"
#include "tools/run_folder.h"
#include "tools/shell.h"
#include "tools/train_run.h"

namespace {

using namespace gm;
namespace fs = std::filesystem;

struct Arguments {
  std::string config, data, out, init, device = "auto", command;
  std::vector<std::string> sets, stages;
  int64_t epochs = 0, batch = 0, seed = -1;
  int threads = 0, folds = 0;
  std::vector<int> only;
  bool resume = false, quiet = false;
};

void declare(CLI::App& app, Arguments& a) {
  app.add_option("config", a.config, "model and recipe (YAML)")->required();
  app.add_option("--data", a.data, "Galaxy10-layout .h5, catalog .csv or folder with labels.csv");
  app.add_option("--out", a.out, "run folder (default runs/MODEL-DATE-TIME)");
  app.add_option("--epochs", a.epochs, "same as --set train.epochs=N")->check(check_positive);
  app.add_option("--batch", a.batch, "same as --set train.batch=N")->check(check_positive);
  add_sets(app, a.sets, "override one key, e.g. --set input.size=64");
  auto* resume = app.add_flag("--resume", a.resume, "continue from the run folder's last.safetensors");
  app.add_option("--init", a.init, "model file or run folder whose weights to start from; same as train.init")
      ->excludes(resume);
  auto* folds =
      app.add_option("--cross-validate", a.folds,
                     "train one model for each of so many folds, in OUT/fold1, OUT/fold2, ...; scores "
                     "go to OUT/summary.json")
          ->check(CLI::Range(2, 1000));
  app.add_option("--folds", a.only, "of these only the folds in this list, e.g. 1,3")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->needs(folds);
  app.add_option("--stage", a.stages,
                 "keys of one stage, e.g. 'input.size=64; train.epochs=10'; given several times, stages are "
                 "trained one after the other in OUT/stage1, OUT/stage2, ..., each from the last weights of "
                 "the one before")
      ->allow_extra_args(false)
      ->excludes(folds);
  add_device(app, a.device, a.threads);
  app.add_option("--seed", a.seed, "same as --set train.seed=N")->check(check_not_negative);
  app.add_flag("--quiet", a.quiet, "print errors only");
}

// The short options are shorthands for keys of the configuration.
void resolve(Arguments& a) {
  if (a.epochs) a.sets.push_back("train.epochs=" + std::to_string(a.epochs));
  if (a.batch) a.sets.push_back("train.batch=" + std::to_string(a.batch));
  if (a.seed >= 0) a.sets.push_back("train.seed=" + std::to_string(a.seed));
}

// The configuration with everything that the command line says, checked.
TrainJob make_job(const Arguments& args, bool resume) {
  TrainJob job;
  job.yaml = load_config(args.config, args.sets);
  set_path(job.yaml, "data", "path", args.data);
  set_path(job.yaml, "train", "init", args.init);
  job.run = read_run_config(job.yaml, args.config);
  job.command = args.command;
  job.resume = resume;
  job.quiet = args.quiet;
  job.sets = args.sets;
  if (!job.run.train.init.empty() && !resume) {
    job.init = read_model(job.run.train.init);
    adopt_model_conventions(job.yaml, job.init->architecture, args.sets);
    job.run = read_run_config(job.yaml, args.config);
  }
  const std::string begun = args.out + "/config.yaml";
  if (job.run.data_path.empty() && resume && fs::exists(begun)) {  // as the run began
    set_path(job.yaml, "data", "path", read_run_config(load_config(begun, {}), begun).data_path);
    job.run = read_run_config(job.yaml, args.config);
  }
  if (job.run.data_path.empty()) fail("no data: give --data PATH or data.path in " + args.config);
  return job;
}

// The arguments of stage k, from 1. Which images are trained on must stay: later stages would validate on
// images that earlier ones have seen.
Arguments stage_arguments(const Arguments& args, size_t k) {
  Arguments a = args;
  std::istringstream keys(args.stages[k - 1]);
  for (std::string set; std::getline(keys, set, ';');) {
    const size_t start = set.find_first_not_of(' ');
    if (start == std::string::npos) continue;
    set.erase(0, start);
    if (const std::string problem = check_assignment(set); !problem.empty())
      throw UsageError("--stage: " + problem);
    for (const char* fixed : {"data", "train.seed", "train.init", "recipe"})
      if (is_set({set}, fixed)) fail("--stage: " + set + " must be the same in all stages; use --set");
    a.sets.push_back(set);
  }
  a.out = fmt::format("{}/stage{}", args.out, k);
  if (k > 1) a.init = fmt::format("{}/stage{}/last.safetensors", args.out, k - 1);
  return a;
}

void train_stages(const Arguments& args, Device& device, const std::string& runs_on,
                  const std::shared_ptr<ImageCache>& cache) {
  const size_t count = args.stages.size();
  auto begun = [&](size_t k) { return fs::exists(fmt::format("{}/stage{}/last.safetensors", args.out, k)); };
  if (args.resume && !begun(1)) fail(args.out + "/stage1: no last.safetensors to resume from");
  if (args.resume && begun(count + 1))
    fail(fmt::format("{}/stage{} has begun: give its --stage as well", args.out, count + 1));
  for (size_t k = 1; k <= count; ++k) {
    Arguments a = stage_arguments(args, k);
    if (begun(k + 1)) {
      TrainJob ended = make_job(a, true);
      for (const std::string& change : take_up_config(ended, a.out + "/config.yaml", MayChange::recipe))
        fail(fmt::format("{} has ended ({}): give it to the stages that follow", a.out, change));
    }
    if (k > 1) a.init = "";  // the file is still to come
    const TrainJob job = make_job(a, false);
    check_split(job, split_of(job, *cache->data()));
    check_network(job.run);
  }
  const std::atomic<bool>& stop = stop_on_signals();  // before the first file
  for (size_t k = 1; k <= count; ++k) {
    if (k < count && begun(k + 1)) continue;
    const Arguments a = stage_arguments(args, k);
    TrainJob job = make_job(a, begun(k));
    if (job.resume) job.changes = take_up_config(job, a.out + "/config.yaml", MayChange::recipe);
    job.run.architecture.class_names = cache->data()->classes();
    job.out = a.out;
    job.resume_with = args.init.empty() ? "the same command and --resume"
                                        : "the same command, with --resume in place of --init";
    const Split split = split_of(job, *cache->data());
    if (train_run(std::move(job), device, runs_on, cache, split, stop) == Trainer::Outcome::interrupted)
      return;
  }
}

void train(Arguments args) {
  TrainJob job = make_job(args, args.resume);
  if (args.out.empty()) {
    if (args.resume) throw UsageError("--resume needs --out DIR, the run folder to continue");
    const std::time_t now = std::time(nullptr);
    char stamp[32];
    std::strftime(stamp, sizeof stamp, "%Y%m%d-%H%M%S", std::localtime(&now));
    args.out = "runs/" + fs::path(args.config).stem().string() + "-" + stamp;
  }
  job.out = args.out;
  if (!args.resume) {
    // The inputs may be the run's own: the run is what to speak of. Folds are spoken of by cross_validate.
    if (!args.folds) expect_no_run(args.out);
    for (const char* file : {"/config.yaml", "/split.csv", "/metrics.csv"})
      keep_inputs(args.out + file, {args.config, job.run.data_path});
  }
  std::string more;
  if (!args.only.empty()) more += fmt::format(" --folds {}", fmt::join(args.only, ","));
  if (args.device != "auto") more += " --device " + args.device;
  if (args.threads) more += fmt::format(" --threads {}", args.threads);
  job.resume_with = fmt::format("gm_train {}{} --out {} --resume{}", shell_word(args.out + "/config.yaml"),
                                args.folds ? fmt::format(" --cross-validate {}", args.folds) : "",
                                shell_word(args.out), more);
  const std::string begun = args.out + "/config.yaml";
  if (args.resume && args.stages.empty() && fs::exists(begun))
    job.changes = take_up_config(job, begun, args.folds ? MayChange::place : MayChange::recipe);
  // Everything is checked before the first file is written.
  auto device = open_device(
      args.device,
      {.threads = args.threads, .deterministic = job.run.train.deterministic, .tf32 = job.run.train.tf32});
  const std::string runs_on = device_line(*device, args.device);
  const auto data = open_training_data(job.run);
  job.run.architecture.class_names = data->classes();
  const auto cache = std::make_shared<ImageCache>(data, job.run.cache_bytes);
  if (args.folds) {
    job.init.reset();  // each fold reads it
    cross_validate({.job = std::move(job),
                    .new_job = [&](bool resume) { return make_job(args, resume); },
                    .folds = args.folds,
                    .only = args.only,
                    .device_line = runs_on},
                   *device, cache);
    return;
  }
  if (!args.stages.empty()) {
    train_stages(args, *device, runs_on, cache);
    return;
  }
  const Split split = split_of(job, *data);
  train_run(std::move(job), *device, runs_on, cache, split, stop_on_signals());  // before the first file
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Trains a network on galaxy images. Writes to the run folder: config.yaml, split.csv, metrics.csv, "
      "last.safetensors (resumable), best.safetensors, TensorBoard events and log.txt."};
  Arguments args;
  declare(app, args);
  args.command = shell_command(argc, argv);
  return gm::run_tool(app, argc, argv, [&] {
    resolve(args);
    train(args);
  });
}
