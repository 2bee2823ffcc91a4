#include "tools/train_run.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>

#include "engine/atomic_file.h"
#include "tools/training_run.h"

namespace gm {

Split split_of(const TrainJob& job, const Dataset& data) {
  if (job.resume) return read_split(RunFolder(job.out, true).file("split.csv"), data, true);
  return split_of(job.run, data);
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

BuildOptions build_options(const RunConfig& run, bool augmented, bool soft_labels) {
  return {.batch = run.train.batch,
          .training = true,
          .dtype = run.train.bf16 ? DType::bf16 : DType::f32,
          .label_smoothing = run.train.label_smoothing,
          .augmented = augmented,
          .soft_labels = soft_labels,
          .mixup = run.train.mixup,
          .cutmix = run.train.cutmix,
          .class_weights = run.train.balanced,
          .freeze = run.train.freeze,
          .l2 = run.train.l2};
}

}  // namespace

void check_network(const RunConfig& run) {
  ParameterTable table;
  build_network(run.architecture, table, build_options(run, false, false));
}

TrainingRun::TrainingRun(TrainJob job, Device& device, const std::shared_ptr<ImageCache>& cache,
                         const Split& split)
    : job_(std::move(job)),
      device_(device),
      cache_(cache),
      split_(split),
      images_(device.backend() == Backend::cuda ? std::make_unique<ImagePool>(device) : nullptr),
      training_(data(), split.train, loading(true)),
      validation_(data(), split.val, loading(false)),
      graph_(
          fuse_for_training(build_network(run_.architecture, table_, building(true)), {}, device.backend())),
      folded_(build_network(run_.architecture, table_, building(false)), {}, device.backend()),
      weights_(device, table_, run_.train.bf16, true),
      eval_weights_(device, folded_.table, run_.train.bf16, false) {
  if (images_) {
    graph_.augment.set("colour", Transform(run_.transform, true).recolours());
    folded_.net.augment.set("colour", 0);
  }
  trainer_.emplace(
      device, graph_, folded_.net, table_, weights_, eval_weights_,
      [this] { folded_.refresh(table_, weights_, eval_weights_); }, run_.optimizer, run_.schedule,
      training_config());
}

Trainer::Outcome TrainingRun::operator()(const std::string& device_line, const std::atomic<bool>& stop) {
  const std::string started = job_.resume ? "" : initialize();
  const RunFolder folder(job_.out, job_.resume);
  const FolderLock hold = hold_run(job_.out);
  for (const char* name : {"last.safetensors", "best.safetensors"}) remove_unfinished(folder.file(name));
  job_.resume ? take_up(folder) : record(folder);
  Log log(folder.file("log.txt"), job_.resume, job_.quiet);
  log_beginning(log, device_line, started);
  if (images_)
    reserve_images(*images_, device_.free_bytes(), *cache_, split_.train.size() + split_.val.size(),
                   run_.train.batch);
  const size_t budget = log_memory(log);
  TrainingBoard board(job_.out, run_.train.board_epochs,
                      {.device = device_,
                       .table = table_,
                       .weights = weights_,
                       .images = *cache_,
                       .classes = run_.architecture.class_names,
                       .training = Transform(run_.transform, true),
                       .rows = split_.train,
                       .seed = seed()});
  Progress progress(!job_.quiet);
  const auto outcome = trainer_->run(training_, validation_, events(log, board, progress), stop);
  progress.clear();
  log_end(log, outcome, budget, folder);
  return outcome;
}

// Fresh weights, or those of another network; says from where.
std::string TrainingRun::initialize() {
  weights_.initialize(table_, seed());
  if (!job_.init) return "";
  std::string started = start_from(*job_.init, run_.architecture.class_names, table_, weights_);
  job_.init->tensors = {};
  return started;
}

// What a run is resumed by.
void TrainingRun::record(const RunFolder& folder) const {
  write_split(folder.file("split.csv"), *data(), split_);
  write_file_atomic(folder.file("config.yaml"), config_text(job_.yaml));
}

// The last checkpoint. A run at its end keeps the configuration that it was trained by.
void TrainingRun::take_up(const RunFolder& folder) {
  trainer_->resume();
  // Later epochs write it only where they are better.
  if (const std::string best = folder.file("best.safetensors");
      trainer_->best_epoch() >= 0 && !std::filesystem::exists(best))
    fail(
        fmt::format("{}: is not there, with the weights of epoch {}, the best so far; put it back, or begin "
                    "another run from last.safetensors with --init",
                    best, trainer_->best_epoch() + 1));
  if (trainer_->ended() && job_.learns_otherwise)
    fail(
        fmt::format("{}: has ended after {} epochs and would not train on ({}); train.epochs or "
                    "train.patience must be larger",
                    job_.out, trainer_->epochs_done(), fmt::join(job_.changes, "; ")));
  if (!job_.changes.empty()) write_file_atomic(folder.file("config.yaml"), config_text(job_.yaml));
}

// A card is sent 8-bit images, once each as far as there is room.
LoaderConfig TrainingRun::loading(bool training) const {
  return {.batch = run_.train.batch,
          .group = run_.optimizer.accumulate,
          .transform = run_.transform,
          .training = training,
          .seed = seed(),
          .workers = run_.workers,
          .cache = cache_,
          .device_images = images_.get()};
}

BuildOptions TrainingRun::building(bool training) const {
  BuildOptions options = build_options(run_, images_ != nullptr, data()->soft());
  options.training = training;
  return options;
}

TrainerConfig TrainingRun::training_config() const {
  TrainerConfig c;
  c.epochs = run_.train.epochs;
  c.checkpoint_steps = run_.train.checkpoint_steps;
  c.patience = run_.train.patience;
  c.restore_best = run_.train.restore_best;
  c.recompute = run_.train.recompute;
  c.seed = seed();
  c.images = images_.get();
  if (run_.train.balanced)
    c.class_weights = balanced_weights(*data(), split_.train, run_.architecture.classes);
  c.out_dir = job_.out;
  c.metadata = model_metadata(run_.architecture, job_.yaml["augment"]);
  return c;
}

TrainerEvents TrainingRun::events(Log& log, TrainingBoard& board, Progress& progress) {
  TrainerEvents events;
  events.on_step = [&](const TrainerEvents::Step& s) {
    progress.update(static_cast<double>(s.batch) / static_cast<double>(s.batches),
                    fmt::format("epoch {}/{}", s.epoch + 1, s.epochs),
                    fmt::format("loss {:.4f}  accuracy {:.4f}  {:.0f} img/s  ETA {}", s.loss, s.accuracy,
                                s.images_per_second, duration_text(s.eta_seconds)));
  };
  events.on_epoch = [&](const EpochMetrics& m, bool best) {
    progress.clear();
    log_epoch(log, m, best);
    board.epoch(m, trainer_->confusion());
  };
  return events;
}

Trainer::Outcome train_run(TrainJob job, Device& device, const std::string& device_line,
                           const std::shared_ptr<ImageCache>& cache, const Split& split,
                           const std::atomic<bool>& stop) {
  check_split(job, split);
  return TrainingRun(std::move(job), device, cache, split)(device_line, stop);
}

}  // namespace gm
