// Networks trained from scratch, each by a gm_train process of its own, several at a time: what a search
// compares. Nothing is shared but the run folder, so that its parts may run on several machines.
#pragma once
#include <yaml-cpp/yaml.h>

#include <atomic>
#include <optional>
#include <string>
#include <vector>

#include "engine/metrics.h"

namespace CLI {
class App;
}

namespace gm {

struct Candidate {
  std::string name;   // of its folder: letters, digits, '.', '_', '-'
  YAML::Node config;  // complete and resolved, data.path included: gm_train takes it as it is
};

/// The same for all candidates of a comparison.
struct CandidateBudget {
  int64_t epochs = 10;
  int64_t seed = -1;  // -1: that of the configuration
};
/// Writes it into train.epochs and train.seed.
void set_budget(YAML::Node config, const CandidateBudget& budget);

struct CandidateResult {
  int64_t epochs = 0;       // trained; fewer than asked for after early stopping
  double val_accuracy = 0;  // after the last epoch: choosing an epoch would be a selection of its own
  double val_loss = 0;      // likewise
  int64_t val_images = 0;
  int64_t macs = 0, params = 0;  // one image; trainable parameters
  double seconds = 0;            // of training, interruptions excluded

  /// 95 %, Wilson.
  Interval accuracy_interval() const;
};

struct CandidateOptions {
  std::string folder;  // each candidate trains in FOLDER/NAME
  int jobs = 1;        // processes at a time
  int threads = 0;     // of all jobs together; 0: all
  std::string device = "auto";
  int part = 0, parts = 1;  // train those whose index is `part` modulo `parts`
  bool quiet = false;
  std::string trainer;  // default: the gm_train beside the running program
};

/// --jobs, --threads, --device, --only and --quiet.
void declare_candidate_options(CLI::App& command, CandidateOptions& options);
/// --epochs and --seed.
void declare_budget_options(CLI::App& command, CandidateBudget& budget);

/// Throws gm::Error, before anything is written, when a name or a configuration is not valid, the trainer is
/// not there, the data cannot be read or have not at least two classes, or a folder holds a candidate of the
/// same name and another configuration.
void check_candidates(const std::vector<Candidate>& candidates, const CandidateOptions& options);

/// Trains those that have no result yet and returns the results of all, of other parts too. A candidate that
/// was interrupted continues from its checkpoint; one that another process holds is left to it. None for
/// those that are not finished yet: elsewhere, or because `stop` was set, which tells the processes to write
/// a checkpoint and end. A failure is one line on standard error and stops no other candidate; a later call
/// tries it again. Throws gm::Error when all others are done. Calls check_candidates() first.
std::vector<std::optional<CandidateResult>> train_candidates(const std::vector<Candidate>& candidates,
                                                             const CandidateOptions& options,
                                                             const std::atomic<bool>& stop);

/// "" when all have a result, else "2 of 9 networks are still to be trained".
std::string missing_text(const std::vector<std::optional<CandidateResult>>& results);

/// Parts of the above: where a candidate trains, what stands in its candidate.yaml, and the gm_train that
/// trains it (throws gm::Error when it is not there).
std::string candidate_folder(const Candidate& candidate, const CandidateOptions& options);
std::string candidate_text(const Candidate& candidate);
std::string find_trainer(const CandidateOptions& options);

}  // namespace gm
