// gm_train CONFIG.yaml --data PATH --out DIR: trains a network and writes a run folder.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <csignal>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <optional>

#include "data/loader.h"
#include "engine/atomic_file.h"
#include "engine/trainer.h"
#include "layers/import.h"
#include "layers/rewrites.h"
#include "tools/cli.h"
#include "tools/model_file.h"
#include "tools/run_config.h"
#include "tools/run_folder.h"
#include "tools/tensorboard.h"

namespace {

using namespace gm;
namespace fs = std::filesystem;

std::atomic<bool> g_stop{false};
void on_signal(int) { g_stop = true; }

struct Arguments {
  std::string config, data, out, init, device = "auto";
  std::vector<std::string> sets;
  int64_t epochs = 0, batch = 0, seed = -1;
  int threads = 0;
  bool resume = false, quiet = false;
};

void declare(CLI::App& app, Arguments& a) {
  app.add_option("config", a.config, "model and recipe (YAML)")->required();
  app.add_option("--data", a.data, "Galaxy10-layout .h5, catalog .csv or folder with labels.csv");
  app.add_option("--out", a.out, "run folder (default runs/MODEL-DATE-TIME)");
  app.add_option("--epochs", a.epochs, "same as --set train.epochs=N")->check(CLI::PositiveNumber);
  app.add_option("--batch", a.batch, "same as --set train.batch=N")->check(CLI::PositiveNumber);
  app.add_option("--set", a.sets, "override one key, e.g. --set input.size=64")->check(check_assignment);
  auto* resume = app.add_flag("--resume", a.resume, "continue from the run folder's last.safetensors");
  app.add_option("--init", a.init, "model file or run folder whose weights to start from; same as train.init")
      ->excludes(resume);
  app.add_option("--device", a.device, "auto, cpu, cuda or cuda:INDEX")
      ->capture_default_str()
      ->check(check_device);
  app.add_option("--threads", a.threads, "CPU threads; 0: all")
      ->capture_default_str()
      ->check(CLI::Range(0, 4096));
  app.add_option("--seed", a.seed, "same as --set train.seed=N")->check(CLI::NonNegativeNumber);
  app.add_flag("--quiet", a.quiet, "print errors only");
}

// The short options are shorthands for keys of the configuration.
void resolve(Arguments& a) {
  if (a.epochs) a.sets.push_back("train.epochs=" + std::to_string(a.epochs));
  if (a.batch) a.sets.push_back("train.batch=" + std::to_string(a.batch));
  if (a.seed >= 0) a.sets.push_back("train.seed=" + std::to_string(a.seed));
}

void train(Arguments args) {
  YAML::Node yaml = load_config(args.config, args.sets);
  if (!args.data.empty()) yaml["data"]["path"] = args.data;
  if (!args.init.empty()) yaml["train"]["init"] = args.init;
  RunConfig run = read_run_config(yaml, args.config);
  std::optional<ModelFile> init;
  if (!run.train.init.empty() && !args.resume) {
    init = read_model(run.train.init);
    adopt_model_conventions(yaml, init->architecture, args.sets);
    run = read_run_config(yaml, args.config);
  }
  if (run.data_path.empty()) fail("no data: give --data PATH or data.path in " + args.config);

  if (args.out.empty()) {
    if (args.resume) fail("--resume needs --out DIR, the run folder to continue");
    const std::time_t now = std::time(nullptr);
    char stamp[32];
    std::strftime(stamp, sizeof stamp, "%Y%m%d-%H%M%S", std::localtime(&now));
    args.out = "runs/" + fs::path(args.config).stem().string() + "-" + stamp;
  }
  // Everything is checked before the first file is written.
  auto device = open_device(args.device, {.threads = args.threads});
  auto data = open_dataset(run.data_path);
  if (data->classes().empty()) fail(run.data_path + ": has no labels (a column label or class)");
  if (static_cast<int>(data->classes().size()) != run.architecture.classes)
    fail(fmt::format("{}: has {} classes, the model {}; use --set model.classes={}", run.data_path,
                     data->classes().size(), run.architecture.classes, data->classes().size()));
  run.architecture.class_names = data->classes();
  run.split.seed = static_cast<uint64_t>(run.train.seed);
  const Split split = args.resume ? read_split(RunFolder(args.out, true).file("split.csv"), *data)
                                  : make_split(*data, run.split);
  if (static_cast<int64_t>(split.train.size()) < run.train.batch)
    fail(fmt::format("train.batch {} is larger than the training set ({} images)", run.train.batch,
                     split.train.size()));
  if (split.val.empty()) fail("data.val_fraction leaves no image for validation");

  const uint64_t seed = static_cast<uint64_t>(run.train.seed);
  auto cache = std::make_shared<ImageCache>(data, run.cache_bytes);
  // A graphics card augments by itself; it is sent 8-bit images, once each as far as there is room.
  std::optional<ImagePool> images;
  if (device->backend() == Backend::cuda) images.emplace(*device);
  LoaderConfig loading{.batch = run.train.batch,
                       .transform = run.transform,
                       .training = true,
                       .seed = seed,
                       .workers = run.workers,
                       .cache = cache,
                       .device_images = images ? &*images : nullptr};
  Loader training(data, split.train, loading);
  loading.training = false;
  Loader validation(data, split.val, loading);

  ParameterTable table;
  const DType dtype = run.train.bf16 ? DType::bf16 : DType::f32;
  const BuildOptions build{.batch = run.train.batch,
                           .training = true,
                           .dtype = dtype,
                           .label_smoothing = run.train.label_smoothing,
                           .augmented = images.has_value(),
                           .freeze = run.train.freeze};
  BuildOptions eval_build = build;
  eval_build.training = false;
  TrainableGraph train_graph = fuse_for_training(build_network(run.architecture, table, build));
  FoldedNetwork folded(build_network(run.architecture, table, eval_build));
  if (images) {
    train_graph.augment.set("colour", Transform(run.transform, true).recolours());
    folded.net.augment.set("colour", 0);
  }
  Weights weights(*device, table, run.train.bf16, true),
      eval_weights(*device, folded.table, run.train.bf16, false);

  TrainerConfig config;
  config.epochs = run.train.epochs;
  config.checkpoint_steps = run.train.checkpoint_steps;
  config.patience = run.train.patience;
  config.restore_best = run.train.restore_best;
  config.recompute = run.train.recompute;
  config.seed = seed;
  config.images = images ? &*images : nullptr;
  config.out_dir = args.out;
  config.metadata = model_metadata(run.architecture, yaml["augment"]);
  Trainer trainer(
      *device, train_graph, folded.net, table, weights, eval_weights,
      [&] { folded.refresh(table, weights, eval_weights); }, run.optimizer, run.schedule, config);
  std::string started;
  if (args.resume) {
    trainer.resume();
  } else {
    weights.initialize(table, seed);
    if (init) {
      started = start_from(*init, table, weights);
      init->tensors = {};
    }
  }

  const RunFolder folder(args.out, args.resume);
  if (!args.resume) {
    write_split(folder.file("split.csv"), *data, split);
    YAML::Emitter text;
    text << yaml;
    write_file_atomic(folder.file("config.yaml"), std::string(text.c_str()) + "\n");
  }
  Log log(folder.file("log.txt"), args.resume, args.quiet);
  log.line("device: " + device->description() +
           (device->backend() == Backend::cpu && args.device == "auto" ? " - " + no_cuda_reason() : ""));
  if (args.resume) log.line(fmt::format("resuming at step {}", trainer.step()));
  log.line(fmt::format("model: {} at {} px, {} classes, {} parameters ({} trainable), {}",
                       run.architecture.name, run.architecture.input_size, run.architecture.classes,
                       table.total_count(), table.trainable_count(), dtype_name(dtype)));
  log.line(fmt::format("data: {} - {} training, {} validation, {} test images", run.data_path,
                       split.train.size(), split.val.size(), split.test.size()));
  if (init)
    for (const std::string& line : {started, "from the same file: " + conventions_text(run.architecture)})
      log.line(line);
  if (table.frozen_count()) log.line(fmt::format("frozen: {} parameters", table.frozen_count()));
  if (images)
    reserve_images(*images, device->free_bytes(), *cache, split.train.size() + split.val.size(),
                   run.train.batch);
  // A graphics card has memory of its own; the data stay in the host's.
  MemoryBudget budget = trainer.budget(), card;
  size_t in_place = weights.bytes() + eval_weights.bytes() + budget.bytes("optimizer state");
  if (device->backend() == Backend::cuda) {
    std::swap(budget, card);
    in_place = 0;
  }
  const size_t resident = resident_bytes();
  budget.add("image cache", cache->most_bytes(split.train.size() + split.val.size()) + data->buffer_bytes());
  budget.add("batches in flight", training.batch_bytes() + validation.batch_bytes());
  budget.add("program", resident - std::min(resident, in_place));
  for (const std::string& line : card.lines("memory budget of the card")) log.line(line);
  for (const std::string& line : budget.lines("memory budget")) log.line(line);

  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  EventWriter board(args.out);
  Progress progress(!args.quiet);
  TrainerEvents events;
  events.on_step = [&](const TrainerEvents::Step& s) {
    progress.update(static_cast<double>(s.batch) / static_cast<double>(s.batches),
                    fmt::format("epoch {}/{}", s.epoch + 1, s.epochs),
                    fmt::format("loss {:.4f}  accuracy {:.4f}  {:.0f} img/s  ETA {}", s.loss, s.accuracy,
                                s.images_per_second, duration_text(s.eta_seconds)));
  };
  events.on_epoch = [&](const EpochMetrics& m, bool best) {
    progress.clear();
    log.line(fmt::format(
        "epoch {:>3}/{}  loss {:.4f}  accuracy {:.4f}  val loss {:.4f}  val accuracy {:.4f}{}  lr {:.3g}"
        "  {:.0f} img/s  data wait {:.0f} %",
        m.epoch + 1, config.epochs, m.train_loss, m.train_accuracy, m.val_loss, m.val_accuracy,
        best ? " *" : "  ", m.lr, m.images_per_second, 100 * m.data_wait));
    board.scalars(m.epoch + 1, {{"loss/train", m.train_loss},
                                {"loss/val", m.val_loss},
                                {"accuracy/train", m.train_accuracy},
                                {"accuracy/val", m.val_accuracy},
                                {"learning_rate", m.lr},
                                {"images_per_second", m.images_per_second}});
  };
  const auto outcome = trainer.run(training, validation, events, g_stop);
  progress.clear();
  if (const DeviceFeed* feed = trainer.feed(); feed && !feed->captured())
    log.line("steps were started kernel by kernel, not as one CUDA graph: " +
             (feed->refusal().empty() ? "there were too few of them" : feed->refusal()));
  if (const size_t peak = device->peak_bytes())
    log.line(fmt::format("peak memory {} MiB, budget {} MiB", mib_text(peak),
                         mib_text(card.total() ? card.total() : budget.total())));
  if (outcome == Trainer::Outcome::interrupted) {
    log.line(fmt::format("stopped at step {}; checkpoint written. Resume with: gm_train {} --out {} --resume",
                         trainer.step(), folder.file("config.yaml"), args.out));
    return;
  }
  if (outcome == Trainer::Outcome::stopped_early)
    log.line(fmt::format("stopped early: no lower validation loss in {} epochs", config.patience));
  log.line(fmt::format("best epoch {} (validation loss {:.4f}, accuracy {:.4f}); model: {}",
                       trainer.best_epoch() + 1, trainer.best_loss(), trainer.best_accuracy(),
                       folder.file("best.safetensors")));
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Trains a network on galaxy images. Writes to the run folder: config.yaml, split.csv, metrics.csv, "
      "last.safetensors (resumable), best.safetensors, TensorBoard events and log.txt."};
  Arguments args;
  declare(app, args);
  return gm::run_tool(app, argc, argv, [&] {
    resolve(args);
    train(args);
  });
}
