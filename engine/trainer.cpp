#include "engine/trainer.h"

#include <cmath>
#include <cstdio>
#include <fstream>
#include <tuple>

#include "engine/atomic_file.h"
#include "engine/image_pool.h"
#include "engine/safetensors.h"
#include "engine/weight_file.h"
#include "kernels/common/clock.h"
#include "kernels/common/parallel.h"

namespace gm {

namespace {
// Which batch of an update a step is, the first or the last, both or neither: a kind of step (Feed::Config).
constexpr size_t kFirst = 1, kLast = 2, kKinds = 4;

// A loss that is not finite, for a message: x86 makes NaNs of negative sign, which says nothing.
std::string loss_text(double loss) { return std::isnan(loss) ? "nan" : std::to_string(loss); }
}  // namespace

Trainer::Trainer(Device& device, const NetworkGraph& train, const NetworkGraph& eval, ParameterTable& table,
                 Weights& weights, Weights& eval_weights, std::function<void()> refresh_eval,
                 const OptimizerConfig& optimizer, const ScheduleConfig& schedule,
                 const TrainerConfig& config)
    : device_(device),
      table_(table),
      weights_(weights),
      refresh_eval_(std::move(refresh_eval)),
      schedule_(schedule),
      config_(config),
      train_ids_(train),
      eval_ids_(eval),
      train_(device, train.graph, weights,
             training_options(train, config.recompute, optimizer.accumulate > 1), config.seed),
      eval_(device, eval.graph, eval_weights, evaluation_options(eval), 0, &train_),
      optimizer_(device, optimizer, table, weights),
      confusion_(static_cast<int>(eval.graph.spec(eval.logits).shape[1])) {
  Feed::Config steps{.pixels = train.pixels,
                     .labels = train.labels,
                     .augment = train.augment,
                     .results = {train.loss, train.correct},
                     .hyper = Optimizer::kHyper};
  for (size_t kind = 0; kind < kKinds; ++kind)
    steps.work.push_back([this, kind](const View& hyper) {
      add_gradients(kind & kFirst);
      if (kind & kLast) optimizer_.apply(hyper);
    });
  feed_ = make_feed(device, train_, config.images, std::move(steps));
  eval_feed_ = make_feed(device, eval_, config.images,
                         {.pixels = eval.pixels,
                          .labels = eval.labels,
                          .augment = eval.augment,
                          .results = {eval.loss, eval.correct, eval.logits},
                          .work = {[this](const View&) { eval_.forward(); }}});
}

MemoryBudget Trainer::budget() const {
  const ThreadPool* pool = device_.context().pool;
  MemoryBudget b = training_budget(train_ids_, eval_ids_,
                                   {.backend = device_.backend(),
                                    .bf16_copies = weights_.bf16_copies().bytes() > 0,
                                    .recompute = config_.recompute,
                                    .threads = pool ? pool->threads() : 1,
                                    .libraries = pool ? 0 : device_.overhead_bytes(),
                                    .optimizer = optimizer_.config()});
  if (config_.images) {
    b.add("images", config_.images->bytes(), "as files hold them");
    b.add("steps in flight", feed_->bytes() + eval_feed_->bytes());
  }
  return b;
}

std::pair<double, double> Trainer::evaluate(BatchSource& source) {
  return validate(source, std::atomic<bool>(false)).value();
}

// Nothing when `stop` cut it short.
std::optional<std::pair<double, double>> Trainer::validate(BatchSource& source,
                                                           const std::atomic<bool>& stop) {
  optimizer_.with_average(refresh_eval_);
  double loss = 0, correct = 0, count = 0;
  confusion_ = ConfusionMatrix(confusion_.classes());
  std::deque<std::vector<int32_t>> labels;  // of the batches whose results are still to come
  auto add = [&](const Feed::Results& r) {
    const auto n = static_cast<double>(labels.front().size());
    loss += static_cast<double>(r[0][0]) * n;
    correct += r[1][0];
    count += n;
    confusion_.add(labels.front(), r[2]);
    labels.pop_front();
  };
  HostBatch batch;
  source.start_epoch(0, 0);
  while (source.next(batch)) {
    labels.emplace_back(batch.labels.begin(), batch.labels.begin() + batch.count);
    if (const auto results = eval_feed_->push(batch)) add(*results);
    if (stop.load()) break;
  }
  while (const auto results = eval_feed_->pop()) add(*results);
  if (static_cast<int64_t>(count) < source.samples()) return {};
  return std::pair(loss / count, correct / count);
}

Trainer::Outcome Trainer::run(BatchSource& train, BatchSource& validation, const TrainerEvents& events,
                              const std::atomic<bool>& stop) {
  const auto stop_early = [this] {
    if (config_.restore_best) {
      TensorReader best_file(config_.out_dir + "/best.safetensors");
      load_weights(best_file, table_, weights_);
      optimizer_.start_average();
      save("last.safetensors", true);
    }
    return Outcome::stopped_early;
  };
  // Resumed after its end; a run killed there has still to take the best weights.
  if (state_.batch == 0 && out_of_patience()) return stop_early();
  // A checkpoint before the first step: a run killed in its first epoch can be resumed too.
  if (state_.step == 0) {
    optimizer_.start_average();
    save("last.safetensors", true);
  }
  while (state_.epoch < config_.epochs) {
    EpochMetrics m;
    if (!train_epoch(train, events, stop, m)) return Outcome::interrupted;
    const auto validated = validate(validation, stop);
    if (!validated) {  // resumed with the validation of this epoch
      save("last.safetensors", true);
      return Outcome::interrupted;
    }
    std::tie(m.val_loss, m.val_accuracy) = *validated;
    if (!std::isfinite(m.val_loss))
      fail("the validation loss became " + loss_text(m.val_loss) + " in epoch " +
           std::to_string(m.epoch + 1) + " (learning rate " + std::to_string(m.lr) +
           "): lower optimizer.lr; last.safetensors holds the last checkpoint before that");
    const bool best = end_epoch(m);
    if (events.on_epoch) events.on_epoch(m, best);
    if (out_of_patience()) return stop_early();
    if (stop.load() && state_.epoch < config_.epochs) return Outcome::interrupted;
  }
  return Outcome::finished;
}

// One epoch, or the rest of it after a resume. False when `stop` cut it short; then a checkpoint is written.
bool Trainer::train_epoch(BatchSource& train, const TrainerEvents& events, const std::atomic<bool>& stop,
                          EpochMetrics& m) {
  const int64_t batches = train.batches(), total = batches * config_.epochs;
  const int64_t each = optimizer_.config().accumulate;  // batches of an update
  GM_CHECK(batches % each == 0,
           "an epoch of " + std::to_string(batches) + " batches is no whole number of updates");
  const int64_t warmup =
      std::llround(schedule_.warmup_epochs * static_cast<double>(batches) / static_cast<double>(each));
  const auto rate_at = [&](int64_t step) {
    return learning_rate(schedule_, optimizer_.config().lr, step / each, warmup, total / each);
  };
  const double start = seconds_now();
  double seen = 0;
  HostBatch batch;
  // Validation has used the same memory.
  if (train_ids_.class_weights != kAbsent)
    train_.upload(train_ids_.class_weights, config_.class_weights.data());
  train.start_epoch(state_.epoch, state_.batch);
  while (train.next(batch)) {
    train_step(batch, rate_at(state_.step));
    seen += static_cast<double>(batch.count);
    const bool due = config_.checkpoint_steps > 0 && state_.step % (config_.checkpoint_steps * each) == 0;
    if (due) settle();
    if (events.on_step && state_.samples > 0) {
      const double rate = seen / (seconds_now() - start);
      const double left =
          static_cast<double>((total - state_.step) * static_cast<int64_t>(batch.labels.size()));
      events.on_step({state_.epoch, config_.epochs, state_.batch, batches, state_.loss_sum / state_.samples,
                      state_.correct / state_.samples, rate, left / rate});
    }
    if (state_.batch == batches) continue;  // the epoch's end writes its own checkpoint
    if (stop.load() && state_.step % each == 0) {
      settle();
      save("last.safetensors", true);
      return false;
    }
    if (due) save("last.safetensors", true);
  }
  settle();
  const double seconds = seconds_now() - start;
  m.epoch = state_.epoch;
  m.lr = rate_at(state_.step - 1);
  m.train_loss = state_.loss_sum / state_.samples;
  m.train_accuracy = state_.correct / state_.samples;
  m.images_per_second = seen / seconds;
  m.data_wait = train.wait_seconds() / seconds;
  return true;
}

// The forward and backward pass of a batch, the first one of an update or one whose gradients are added.
void Trainer::add_gradients(bool first) {
  const Buffer& gradients = weights_.gradients();
  if (first && optimizer_.config().accumulate > 1) device_.fill(gradients.data(), 0, gradients.bytes());
  train_.forward();
  train_.backward();
}

void Trainer::train_step(const HostBatch& batch, double lr) {
  pending_.push_back({state_.step, batch.count, lr});
  const int64_t each = optimizer_.config().accumulate, update = state_.step / each;
  const size_t first = state_.step % each == 0 ? kFirst : 0,
               last = state_.step % each == each - 1 ? kLast : 0;
  const uint64_t step = static_cast<uint64_t>(state_.step++);
  ++state_.batch;
  record(feed_->push(batch, {config_.seed, step}, optimizer_.hyper(lr, update), first | last));
}

// Adds the oldest step whose results are still to come to the sums of the epoch.
void Trainer::record(const std::optional<Feed::Results>& results) {
  if (!results) return;
  const Pending p = pending_.front();
  pending_.pop_front();
  const double loss = (*results)[0][0], n = static_cast<double>(p.count);
  if (!std::isfinite(loss))
    fail("the loss became " + loss_text(loss) + " at step " + std::to_string(p.step) + " (learning rate " +
         std::to_string(p.lr) + "): lower optimizer.lr; last.safetensors holds the last good weights");
  state_.loss_sum += loss * n;
  state_.correct += (*results)[1][0];
  state_.samples += n;
}

// Waits for all results: before anything is saved or reported.
void Trainer::settle() {
  while (!pending_.empty()) record(feed_->pop());
}

// Records a finished epoch in memory and on disk; true when its validation loss is the lowest so far.
bool Trainer::end_epoch(const EpochMetrics& m) {
  const bool best = m.val_loss < state_.best_loss;
  if (best) {
    state_.best_loss = m.val_loss;
    state_.best_accuracy = m.val_accuracy;
    state_.best_epoch = m.epoch;
  }
  state_.epochs_without_gain = best ? 0 : state_.epochs_without_gain + 1;
  state_.batch = 0;
  state_.loss_sum = state_.correct = state_.samples = 0;
  ++state_.epoch;  // the checkpoint names the next epoch
  // Metrics come first, so that a crash in between repeats a line rather than losing one.
  append_metrics(m);
  if (best) save("best.safetensors", false);
  save("last.safetensors", true);
  return best;
}

void Trainer::append_metrics(const EpochMetrics& m) const {
  // Lines of epochs that are about to be repeated (resume from an older checkpoint) are dropped.
  const std::string path = config_.out_dir + "/metrics.csv";
  std::string text = "epoch,train_loss,train_accuracy,val_loss,val_accuracy,lr,images_per_second,data_wait\n";
  std::ifstream old(path);
  std::string line;
  std::getline(old, line);
  while (std::getline(old, line))
    if (!line.empty() && std::atoll(line.c_str()) < m.epoch + 1) text += line + "\n";
  char row[256];
  std::snprintf(row, sizeof row, "%lld,%.6f,%.6f,%.6f,%.6f,%.8g,%.1f,%.4f\n",
                static_cast<long long>(m.epoch + 1), m.train_loss, m.train_accuracy, m.val_loss,
                m.val_accuracy, m.lr, m.images_per_second, m.data_wait);
  write_file_atomic(path, text + row);
}

}  // namespace gm
