#include "tools/train_run.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "data/folds.h"
#include "engine/atomic_file.h"
#include "layers/import.h"
#include "layers/rewrites.h"
#include "tools/cli.h"
#include "tools/run_folder.h"
#include "tools/training_board.h"

namespace gm {

std::shared_ptr<Dataset> open_training_data(const RunConfig& run, const std::string& one_class) {
  auto data = open_dataset(run.data_path, {.classes = run.architecture.class_names});
  const size_t classes = data->classes().size();
  if (classes == 0) fail(run.data_path + ": has no labels (a column label or class)");
  if (classes == 1) fail(run.data_path + ": " + one_class);
  if (static_cast<int>(classes) != run.architecture.classes)
    fail(fmt::format("{}: has {} classes, the model {}; use --set model.classes={}", run.data_path, classes,
                     run.architecture.classes, classes));
  return data;
}

Split split_of(const TrainJob& job, const Dataset& data) {
  const RunConfig& run = job.run;
  if (job.resume) return read_split(RunFolder(job.out, true).file("split.csv"), data, true);
  if (run.folds)
    return fold_split(
        make_folds(
            data, {.count = run.folds, .seed = run.split.seed, .same_sky_arcsec = run.split.same_sky_arcsec}),
        run.fold - 1);
  return make_split(data, run.split);
}

void check_split(const TrainJob& job, const Split& split) {
  const int64_t batch = job.run.train.batch, each = job.run.optimizer.accumulate;
  if (static_cast<int64_t>(split.train.size()) < batch * each)
    fail(fmt::format("train.batch {}{} is larger than the training set ({} images)", batch,
                     each > 1 ? fmt::format(" times optimizer.accumulate {}", each) : "",
                     split.train.size()));
  if (split.val.empty()) fail("data.val_fraction leaves no image for validation");
}

namespace {

BuildOptions build_options(const RunConfig& run, bool augmented) {
  return {.batch = run.train.batch,
          .training = true,
          .dtype = run.train.bf16 ? DType::bf16 : DType::f32,
          .label_smoothing = run.train.label_smoothing,
          .augmented = augmented,
          .mixup = run.train.mixup,
          .cutmix = run.train.cutmix,
          .class_weights = run.train.balanced,
          .freeze = run.train.freeze,
          .l2 = run.train.l2};
}

// n / (classes * n_class); 0 for a class without images.
std::vector<float> balanced_weights(const Dataset& data, const std::vector<int64_t>& rows, int classes) {
  std::vector<double> counts(static_cast<size_t>(classes));
  for (const int64_t row : rows) ++counts[static_cast<size_t>(data.label(row))];
  std::vector<float> weights;
  for (const double n : counts)
    weights.push_back(n > 0 ? static_cast<float>(static_cast<double>(rows.size()) / (classes * n)) : 0.f);
  return weights;
}

}  // namespace

void check_network(const RunConfig& run) {
  ParameterTable table;
  build_network(run.architecture, table, build_options(run, false));
}

Trainer::Outcome train_run(TrainJob job, Device& device, const std::string& device_line,
                           const std::shared_ptr<ImageCache>& cache, const Split& split,
                           const std::atomic<bool>& stop) {
  const RunConfig& run = job.run;
  const std::shared_ptr<const Dataset> data = cache->data();
  check_split(job, split);

  const uint64_t seed = static_cast<uint64_t>(run.train.seed);
  // A graphics card augments by itself; it is sent 8-bit images, once each as far as there is room.
  std::optional<ImagePool> images;
  if (device.backend() == Backend::cuda) images.emplace(device);
  LoaderConfig loading{.batch = run.train.batch,
                       .group = run.optimizer.accumulate,
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
  const BuildOptions build = build_options(run, images.has_value());
  BuildOptions eval_build = build;
  eval_build.training = false;
  TrainableGraph train_graph =
      fuse_for_training(build_network(run.architecture, table, build), {}, device.backend());
  FoldedNetwork folded(build_network(run.architecture, table, eval_build), {}, device.backend());
  if (images) {
    train_graph.augment.set("colour", Transform(run.transform, true).recolours());
    folded.net.augment.set("colour", 0);
  }
  Weights weights(device, table, run.train.bf16, true),
      eval_weights(device, folded.table, run.train.bf16, false);

  TrainerConfig config;
  config.epochs = run.train.epochs;
  config.checkpoint_steps = run.train.checkpoint_steps;
  config.patience = run.train.patience;
  config.restore_best = run.train.restore_best;
  config.recompute = run.train.recompute;
  config.seed = seed;
  config.images = images ? &*images : nullptr;
  if (run.train.balanced)
    config.class_weights = balanced_weights(*data, split.train, run.architecture.classes);
  config.out_dir = job.out;
  config.metadata = model_metadata(run.architecture, job.yaml["augment"]);
  Trainer trainer(
      device, train_graph, folded.net, table, weights, eval_weights,
      [&] { folded.refresh(table, weights, eval_weights); }, run.optimizer, run.schedule, config);
  std::string started;
  if (!job.resume) {
    weights.initialize(table, seed);
    if (job.init) {
      started = start_from(*job.init, table, weights);
      job.init->tensors = {};
    }
  }

  const RunFolder folder(job.out, job.resume);
  const FolderLock hold = hold_run(job.out);
  if (job.resume) trainer.resume();
  if (!job.resume) write_split(folder.file("split.csv"), *data, split);
  if (!job.resume || !job.changes.empty())
    write_file_atomic(folder.file("config.yaml"), config_text(job.yaml));
  Log log(folder.file("log.txt"), job.resume, job.quiet);
  log.line(device_line);
  log.line(std::string(kCommandInLog) + job.command);
  if (job.resume) log.line(fmt::format("resuming at step {}", trainer.step()));
  for (const std::string& change : job.changes) log.line(change);
  log.line(fmt::format("model: {} at {} px, {} classes, {} parameters ({} trainable), {}",
                       run.architecture.name, run.architecture.input_size, run.architecture.classes,
                       table.total_count(), table.trainable_count(), dtype_name(dtype)));
  log.line(fmt::format("data: {} - {} training, {} validation, {} test images", run.data_path,
                       split.train.size(), split.val.size(), split.test.size()));
  if (job.init)
    for (const std::string& line : {started, "from the same file: " + conventions_text(run.architecture)})
      log.line(line);
  if (run.train.balanced)
    log.line(fmt::format("class weights: {:.4f}", fmt::join(config.class_weights, " ")));
  if (run.optimizer.accumulate > 1)
    log.line(fmt::format("updates from {} batches of {} images", run.optimizer.accumulate, run.train.batch));
  if (table.frozen_count()) log.line(fmt::format("frozen: {} parameters", table.frozen_count()));
  if (images)
    reserve_images(*images, device.free_bytes(), *cache, split.train.size() + split.val.size(),
                   run.train.batch);
  // A graphics card has memory of its own; the data stay in the host's.
  MemoryBudget budget = trainer.budget(), card;
  size_t in_place = weights.bytes() + eval_weights.bytes() + budget.bytes("optimizer state");
  if (device.backend() == Backend::cuda) {
    std::swap(budget, card);
    in_place = 0;
  }
  const size_t resident = resident_bytes();
  budget.add("image cache", cache->most_bytes(split.train.size() + split.val.size()) + data->buffer_bytes());
  budget.add("batches in flight", training.batch_bytes() + validation.batch_bytes());
  in_place += cache->bytes();  // filled by an earlier run
  budget.add("program", resident - std::min(resident, in_place));
  for (const std::string& line : card.lines("memory budget of the card")) log.line(line);
  for (const std::string& line : budget.lines("memory budget")) log.line(line);

  TrainingBoard board(job.out, run.train.board_epochs,
                      {.device = device,
                       .table = table,
                       .weights = weights,
                       .images = *cache,
                       .classes = run.architecture.class_names,
                       .training = Transform(run.transform, true),
                       .rows = split.train,
                       .seed = seed});
  Progress progress(!job.quiet);
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
    board.epoch(m, trainer.confusion());
  };
  const auto outcome = trainer.run(training, validation, events, stop);
  progress.clear();
  if (const DeviceFeed* feed = trainer.feed(); feed && !feed->captured())
    log.line("steps were started kernel by kernel, not as one CUDA graph: " +
             (feed->refusal().empty() ? "there were too few of them" : feed->refusal()));
  if (const size_t peak = device.peak_bytes())
    log.line(fmt::format("peak memory {} MiB, budget {} MiB", mib_text(peak),
                         mib_text(card.total() ? card.total() : budget.total())));
  if (outcome == Trainer::Outcome::interrupted) {
    log.line(fmt::format("stopped at step {}; checkpoint written. Resume with: {}", trainer.step(),
                         job.resume_with));
    return outcome;
  }
  if (outcome == Trainer::Outcome::stopped_early)
    log.line(fmt::format("stopped early: no lower validation loss in {} epochs", config.patience));
  log.line(fmt::format("best epoch {} (validation loss {:.4f}, accuracy {:.4f}); model: {}",
                       trainer.best_epoch() + 1, trainer.best_loss(), trainer.best_accuracy(),
                       folder.file("best.safetensors")));
  return outcome;
}

}  // namespace gm
