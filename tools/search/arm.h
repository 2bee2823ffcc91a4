// One sampler of a search with shared weights of its own.
#pragma once
#include <atomic>
#include <functional>
#include <memory>

#include "data/loader.h"
#include "engine/metrics.h"
#include "layers/shared_weights.h"
#include "tools/search/config.h"
#include "tools/search/journal.h"

namespace gm {

/// What the arms of a search have in common: data, built networks, the journal. They run one after the other.
struct SearchShared {
  const SearchConfig& config;
  const SearchSpace& space;
  Loader &training, &scoring;  // the latter: validation images, shuffled, without augmentation
  ChildCache& cache;
  Journal& journal;
  std::string folder;
  int metric_class = -1;  // of recall
  const std::atomic<bool>& stop;
  std::function<void()> progress;  // called after every step and every child
};

/// Alternates as ENAS does: `train_steps` steps of the shared weights on training data, each with a child of
/// the sampler; then `children` networks scored on validation minibatches, the same for all of one iteration;
/// then the sampler learns. Iterations and draws are numbered, so that every sampler sees the same batches.
///
/// The state is written to FOLDER/state_<sampler>.safetensors between training and scoring. Scored children
/// are in the journal; after a kill they are taken from there, so that only the child in flight is lost.
class SearchArm {
 public:
  SearchArm(SearchShared& shared, const std::string& sampler, Device& controller_device);

  const std::string& name() const { return name_; }
  int64_t iteration() const { return iteration_; }
  bool done() const { return iteration_ == shared_.config.iterations; }
  /// Steps and children done so far, of all there are.
  int64_t work_done() const { return work_done_; }
  static int64_t work(const SearchConfig& c) { return c.iterations * (c.train_steps + c.children); }

  /// Reads the state file when there is one. Throws gm::Error, and changes nothing, when it is damaged or of
  /// another search space.
  void resume();
  /// The next iteration. False when the stop flag cut it short.
  bool iterate();

  double loss() const { return loss_; }                // of the last training phase, mean
  double mean_reward() const { return mean_reward_; }  // of the last iteration
  std::string status() const { return sampler_->status(); }

  struct Score {
    double metric = 0, reward = 0;
  };
  /// A network with the current shared weights on `batches`.
  Score score(const ChoiceVector& choices, const std::vector<HostBatch>& batches);

 private:
  std::string state_file() const { return shared_.folder + "/state_" + name_ + ".safetensors"; }
  bool train();
  bool score_children();
  void save() const;

  SearchShared& shared_;
  std::string name_;
  SharedWeights weights_;
  std::unique_ptr<Sampler> sampler_;
  int64_t iteration_ = 0, work_done_ = 0;
  bool trained_ = false;  // the training of this iteration is done
  double loss_ = 0, mean_reward_ = 0;
};

/// Minibatches [first, first + count) of an endless sequence of epochs.
std::vector<HostBatch> minibatches(Loader& loader, int64_t first, int64_t count);

/// The metric of a configuration: accuracy, macro F1, or the recall of one class.
double metric_of(const ConfusionMatrix& confusion, const RewardConfig& config, int metric_class);

}  // namespace gm
