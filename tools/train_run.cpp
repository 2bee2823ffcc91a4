#include "tools/train_run.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>

#include "data/folds.h"
#include "engine/atomic_file.h"
#include "layers/import.h"
#include "layers/rewrites.h"
#include "tools/cli.h"
#include "tools/run_folder.h"
#include "tools/training_board.h"

namespace gm {

namespace {
// Hours may pass before a run meets a picture that is not there.
void check_files(const Dataset& data) {
  int64_t missing = 0, labelled = 0;
  std::string first;
  for (int64_t row = 0; row < data.size(); ++row) {
    if (data.label(row) < 0) continue;
    ++labelled;
    std::error_code none;
    const std::string file = data.file(row);
    if (file.empty() || std::filesystem::exists(file, none)) continue;
    if (!missing++) first = file;
  }
  if (missing)
    fail(fmt::format("{}: {} of {} labelled images are missing, first {}", data.path(), missing, labelled,
                     first));
}
}  // namespace

std::shared_ptr<Dataset> open_training_data(const RunConfig& run, const std::string& one_class) {
  auto data = open_dataset(run.data_path, {.classes = run.architecture.class_names});
  const size_t classes = data->classes().size();
  if (classes == 0)
    fail(run.data_path +
         ": has no labels (a column label or class, or model.class_names and a column of shares for each)");
  if (classes == 1) fail(run.data_path + ": " + one_class);
  if (static_cast<int>(classes) != run.architecture.classes)
    fail(fmt::format("{}: has {} classes, the model {}; use --set model.classes={}{}", run.data_path, classes,
                     run.architecture.classes, classes,
                     static_cast<int>(classes) < run.architecture.classes
                         ? ", or name all with model.class_names if some have no image here"
                         : ""));
  check_files(*data);
  return data;
}

Split split_of(const RunConfig& run, const Dataset& data) {
  if (run.folds)
    return fold_split(
        make_folds(
            data, {.count = run.folds, .seed = run.split.seed, .same_sky_arcsec = run.split.same_sky_arcsec}),
        run.fold - 1);
  return make_split(data, run.split);
}

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

// n / (classes * n_class); 0 for a class without images. Shares of an image count as such.
std::vector<float> balanced_weights(const Dataset& data, const std::vector<int64_t>& rows, int classes) {
  std::vector<double> counts(static_cast<size_t>(classes));
  for (const int64_t row : rows) {
    const auto shares = data.soft_label(row);
    if (shares.empty()) ++counts[static_cast<size_t>(data.label(row))];
    for (size_t k = 0; k < shares.size(); ++k) counts[k] += shares[k];
  }
  std::vector<float> weights;
  for (const double n : counts)
    weights.push_back(n > 0 ? static_cast<float>(static_cast<double>(rows.size()) / (classes * n)) : 0.f);
  return weights;
}

}  // namespace

void check_network(const RunConfig& run) {
  ParameterTable table;
  build_network(run.architecture, table, build_options(run, false, false));
}

namespace {

/// A run from its configuration to its end.
class TrainingRun {
 public:
  TrainingRun(TrainJob job, Device& device, const std::shared_ptr<ImageCache>& cache, const Split& split)
      : job_(std::move(job)),
        device_(device),
        cache_(cache),
        split_(split),
        images_(device.backend() == Backend::cuda ? std::make_unique<ImagePool>(device) : nullptr),
        training_(data(), split.train, loading(true)),
        validation_(data(), split.val, loading(false)),
        graph_(
            fuse_for_training(build_network(run_.architecture, table_, build(true)), {}, device.backend())),
        folded_(build_network(run_.architecture, table_, build(false)), {}, device.backend()),
        weights_(device, table_, run_.train.bf16, true),
        eval_weights_(device, folded_.table, run_.train.bf16, false) {
    if (images_) {
      graph_.augment.set("colour", Transform(run_.transform, true).recolours());
      folded_.net.augment.set("colour", 0);
    }
    trainer_.emplace(
        device, graph_, folded_.net, table_, weights_, eval_weights_,
        [this] { folded_.refresh(table_, weights_, eval_weights_); }, run_.optimizer, run_.schedule,
        config());
  }

  Trainer::Outcome operator()(const std::string& device_line, const std::atomic<bool>& stop) {
    std::string started;
    if (!job_.resume) {
      weights_.initialize(table_, seed());
      if (job_.init) {
        started = start_from(*job_.init, run_.architecture.class_names, table_, weights_);
        job_.init->tensors = {};
      }
    }
    const RunFolder folder(job_.out, job_.resume);
    const FolderLock hold = hold_run(job_.out);
    for (const char* name : {"last.safetensors", "best.safetensors"}) remove_unfinished(folder.file(name));
    if (job_.resume) take_up();
    if (!job_.resume) write_split(folder.file("split.csv"), *data(), split_);
    if (!job_.resume || !job_.changes.empty())
      write_file_atomic(folder.file("config.yaml"), config_text(job_.yaml));
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

 private:
  /// The last checkpoint. A run at its end keeps the configuration that it was trained by.
  void take_up() {
    trainer_->resume();
    // Later epochs write it only where they are better.
    if (const std::string best = job_.out + "/best.safetensors";
        trainer_->best_epoch() >= 0 && !std::filesystem::exists(best))
      fail(fmt::format(
          "{}: is not there, with the weights of epoch {}, the best so far; put it back, or begin "
          "another run from last.safetensors with --init",
          best, trainer_->best_epoch() + 1));
    if (trainer_->ended() && job_.learns_otherwise)
      fail(
          fmt::format("{}: has ended after {} epochs and would not train on ({}); train.epochs or "
                      "train.patience must be larger",
                      job_.out, trainer_->epochs_done(), fmt::join(job_.changes, "; ")));
  }
  const std::shared_ptr<const Dataset>& data() const { return cache_->data(); }
  uint64_t seed() const { return static_cast<uint64_t>(run_.train.seed); }

  // A graphics card augments by itself; it is sent 8-bit images, once each as far as there is room.
  LoaderConfig loading(bool training) const {
    return {.batch = run_.train.batch,
            .group = run_.optimizer.accumulate,
            .transform = run_.transform,
            .training = training,
            .seed = seed(),
            .workers = run_.workers,
            .cache = cache_,
            .device_images = images_.get()};
  }
  BuildOptions build(bool training) const {
    BuildOptions options = build_options(run_, images_ != nullptr, data()->soft());
    options.training = training;
    return options;
  }
  TrainerConfig config() const {
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

  void log_beginning(Log& log, const std::string& device_line, const std::string& started) const {
    log.line(device_line);
    log.line(std::string(kCommandInLog) + job_.command);
    if (job_.resume) log.line(fmt::format("resuming at step {}", trainer_->step()));
    for (const std::string& change : job_.changes) log.line(change);
    log.line(fmt::format("model: {} at {} px, {} classes, {} parameters ({} trainable), {}",
                         run_.architecture.name, run_.architecture.input_size, run_.architecture.classes,
                         table_.total_count(), table_.trainable_count(), run_.train.precision()));
    log.line(fmt::format("data: {} - {} training, {} validation, {} test images", run_.data_path,
                         split_.train.size(), split_.val.size(), split_.test.size()));
    if (job_.init)
      for (const std::string& line : {started, "from the same file: " + conventions_text(run_.architecture)})
        log.line(line);
    if (data()->soft()) log.line("soft labels: shares of the classes are the targets of the loss");
    if (run_.train.balanced)
      log.line(fmt::format("class weights: {:.4f}", fmt::join(config().class_weights, " ")));
    if (run_.optimizer.accumulate > 1)
      log.line(
          fmt::format("updates from {} batches of {} images", run_.optimizer.accumulate, run_.train.batch));
    if (table_.frozen_count()) log.line(fmt::format("frozen: {} parameters", table_.frozen_count()));
  }

  // Returns the bytes to which peak memory compares. A graphics card has memory of its own; the data stay in
  // the host's.
  size_t log_memory(Log& log) const {
    const bool on_card = device_.backend() == Backend::cuda;
    MemoryBudget card = trainer_->budget(), host = on_card ? MemoryBudget() : card;
    size_t in_place = on_card ? 0 : weights_.bytes() + eval_weights_.bytes() + card.bytes("optimizer state");
    const size_t resident = resident_bytes();
    host.add("image cache",
             cache_->most_bytes(split_.train.size() + split_.val.size()) + data()->buffer_bytes());
    host.add("batches in flight", training_.batch_bytes() + validation_.batch_bytes());
    in_place += cache_->bytes();  // filled by an earlier run
    host.add("program", resident - std::min(resident, in_place));
    if (on_card)
      for (const std::string& line : card.lines("memory budget of the card")) log.line(line);
    for (const std::string& line : host.lines("memory budget")) log.line(line);
    return on_card ? card.total() : host.total();
  }

  TrainerEvents events(Log& log, TrainingBoard& board, Progress& progress) {
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
          m.epoch + 1, run_.train.epochs, m.train_loss, m.train_accuracy, m.val_loss, m.val_accuracy,
          best ? " *" : "  ", m.lr, m.images_per_second, 100 * m.data_wait));
      board.epoch(m, trainer_->confusion());
    };
    return events;
  }

  void log_end(Log& log, Trainer::Outcome outcome, size_t budget, const RunFolder& folder) const {
    if (const Feed& feed = trainer_->feed(); images_ && !feed.captured())
      log.line("steps were started kernel by kernel, not as one CUDA graph: " +
               (feed.capture_error().empty() ? "there were too few of them" : feed.capture_error()));
    if (const size_t peak = device_.peak_bytes())
      log.line(fmt::format("peak memory {} MiB, budget {} MiB", mib_text(peak), mib_text(budget)));
    if (outcome == Trainer::Outcome::interrupted) {
      log.line(fmt::format("stopped at step {}; checkpoint written. Resume with: {}", trainer_->step(),
                           job_.resume_with));
      return;
    }
    if (outcome == Trainer::Outcome::stopped_early)
      log.line(fmt::format("stopped early: no lower validation loss in {} epochs", run_.train.patience));
    log.line(fmt::format("best epoch {} (validation loss {:.4f}, accuracy {:.4f}); model: {}",
                         trainer_->best_epoch() + 1, trainer_->best_loss(), trainer_->best_accuracy(),
                         folder.file("best.safetensors")));
  }

  TrainJob job_;
  const RunConfig& run_ = job_.run;
  Device& device_;
  const std::shared_ptr<ImageCache>& cache_;
  const Split& split_;
  std::unique_ptr<ImagePool> images_;
  Loader training_, validation_;
  ParameterTable table_;
  NetworkGraph graph_;
  FoldedNetwork folded_;
  Weights weights_, eval_weights_;
  std::optional<Trainer> trainer_;
};

}  // namespace

Trainer::Outcome train_run(TrainJob job, Device& device, const std::string& device_line,
                           const std::shared_ptr<ImageCache>& cache, const Split& split,
                           const std::atomic<bool>& stop) {
  check_split(job, split);
  return TrainingRun(std::move(job), device, cache, split)(device_line, stop);
}

}  // namespace gm
