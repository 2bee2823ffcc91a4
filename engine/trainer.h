// The training loop: epochs, validation, metrics, checkpoints, resume. Knows no YAML and no data format.
#pragma once
#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/batch_source.h"
#include "engine/budget.h"
#include "engine/feed.h"
#include "engine/metrics.h"
#include "engine/network_graph.h"

namespace gm {

struct EpochMetrics {
  int64_t epoch = 0;  // 0-based
  double train_loss = 0, train_accuracy = 0, val_loss = 0, val_accuracy = 0, lr = 0;
  double images_per_second = 0;  // training samples / seconds spent in training steps and waiting for data
  double data_wait = 0;          // share of those seconds spent waiting
};

struct TrainerConfig {
  int64_t epochs = 1;
  int64_t checkpoint_steps = 0;  // also write last.safetensors every so many updates; 0: at epoch ends only
  int64_t patience = 0;          // early stopping on validation loss; 0: off
  bool restore_best = false;     // after early stopping continue with the best weights (Keras: off)
  bool recompute = false;        // see PlanOptions
  uint64_t seed = 0;
  std::vector<float> class_weights;  // of NetworkGraph::class_weights
  /// Set where the device augments: both graphs have NetworkGraph::augment, batches samples and images.
  /// Steps then follow each other without a wait; results are the same.
  ImagePool* images = nullptr;
  std::string out_dir;
  std::map<std::string, std::string> metadata;  // stored in every weight file: model, classes, scaling ...
};

/// What the user sees while training; called after every step whose results are known (a card is
/// two steps ahead) and every epoch.
struct TrainerEvents {
  struct Step {
    int64_t epoch, epochs, batch, batches;
    double loss, accuracy, images_per_second, eta_seconds;
  };
  std::function<void(const Step&)> on_step;
  std::function<void(const EpochMetrics&, bool best)> on_epoch;
};

class Trainer {
 public:
  /// The evaluation graph shares the parameter table; its batch size may differ. All references must outlive
  /// the trainer. `refresh_eval` makes evaluation weights current (BN folding) before each validation.
  Trainer(Device& device, const NetworkGraph& train, const NetworkGraph& eval, ParameterTable& table,
          Weights& weights, Weights& eval_weights, std::function<void()> refresh_eval,
          const OptimizerConfig& optimizer, const ScheduleConfig& schedule, const TrainerConfig& config);

  /// Continues from OUT/last.safetensors; throws gm::Error when it is missing, truncated or of another model.
  void resume();

  enum class Outcome { finished, interrupted, stopped_early };
  /// Runs to the last epoch. `stop` is polled after each update and each batch of the validation: when set, a
  /// checkpoint is written and `interrupted` returned. Throws gm::Error when an epoch ends between two
  /// batches of one update, for an image that cannot be read, and when a loss or a weight is not finite: the
  /// last checkpoint before stays.
  Outcome run(BatchSource& train, BatchSource& validation, const TrainerEvents& events,
              const std::atomic<bool>& stop);

  /// Loss and accuracy of the current weights; predictions are not kept.
  std::pair<double, double> evaluate(BatchSource& source);

  /// Whether `run` would train no step: all epochs are behind it, or its patience has run out.
  bool ended() const { return state_.batch == 0 && (state_.epoch >= config_.epochs || out_of_patience()); }
  int64_t epochs_done() const { return state_.epoch; }

  /// Batches so far; OptimizerConfig::accumulate of them make an update.
  int64_t step() const { return state_.step; }
  double best_loss() const { return state_.best_loss; }
  double best_accuracy() const { return state_.best_accuracy; }
  int64_t best_epoch() const { return state_.best_epoch; }
  /// Counts of the last evaluation; TrainerEvents::on_epoch sees those of its epoch.
  const ConfusionMatrix& confusion() const { return confusion_; }
  /// What this trainer holds on the device.
  MemoryBudget budget() const;
  /// After a few steps: whether they are one CUDA graph, else why not.
  const Feed& feed() const { return *feed_; }

 private:
  struct State {
    int64_t step = 0, epoch = 0, batch = 0;         // next to run; a step is a batch
    double loss_sum = 0, correct = 0, samples = 0;  // of the epoch so far
    double best_loss = 1e300, best_accuracy = -1;
    int64_t best_epoch = -1, epochs_without_gain = 0;
  };
  bool out_of_patience() const {
    return config_.patience > 0 && state_.epochs_without_gain >= config_.patience;
  }
  std::optional<std::pair<double, double>> validate(BatchSource& source, const std::atomic<bool>& stop);
  bool train_epoch(BatchSource& train, const TrainerEvents& events, const std::atomic<bool>& stop,
                   EpochMetrics& m);
  void train_step(const HostBatch& batch, double lr);
  void add_gradients(bool first);
  void record(const std::optional<Feed::Results>& results);
  void settle();
  bool end_epoch(const EpochMetrics& m);
  void save(const std::string& file, bool full);
  void append_metrics(const EpochMetrics& m) const;

  Device& device_;
  ParameterTable& table_;
  Weights& weights_;
  std::function<void()> refresh_eval_;
  ScheduleConfig schedule_;
  TrainerConfig config_;
  NetworkGraph train_ids_, eval_ids_;
  Session train_, eval_;
  Optimizer optimizer_;
  State state_;
  ConfusionMatrix confusion_;
  std::unique_ptr<Feed> feed_, eval_feed_;
  struct Pending {
    int64_t step, count;
    double lr;
  };
  std::deque<Pending> pending_;  // steps whose results are still to come
};

}  // namespace gm
