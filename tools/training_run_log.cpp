#include <fmt/format.h>
#include <fmt/ranges.h>

#include "layers/import.h"
#include "tools/training_run.h"

namespace gm {

void TrainingRun::log_beginning(Log& log, const std::string& device_line, const std::string& started) const {
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
    log.line(fmt::format("class weights: {:.4f}", fmt::join(training_config().class_weights, " ")));
  if (run_.optimizer.accumulate > 1)
    log.line(
        fmt::format("updates from {} batches of {} images", run_.optimizer.accumulate, run_.train.batch));
  if (table_.frozen_count()) log.line(fmt::format("frozen: {} parameters", table_.frozen_count()));
}

// Returns the bytes to which peak memory compares. A graphics card has memory of its own; the data stay in
// the host's.
size_t TrainingRun::log_memory(Log& log) const {
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

void TrainingRun::log_epoch(Log& log, const EpochMetrics& m, bool best) const {
  log.line(fmt::format(
      "epoch {:>3}/{}  loss {:.4f}  accuracy {:.4f}  val loss {:.4f}  val accuracy {:.4f}{}  lr {:.3g}"
      "  {:.0f} img/s  data wait {:.0f} %",
      m.epoch + 1, run_.train.epochs, m.train_loss, m.train_accuracy, m.val_loss, m.val_accuracy,
      best ? " *" : "  ", m.lr, m.images_per_second, 100 * m.data_wait));
}

void TrainingRun::log_end(Log& log, Trainer::Outcome outcome, size_t budget, const RunFolder& folder) const {
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

}  // namespace gm
