// One training run: data, network and trainer put together, a run folder and a log written.
#pragma once
#include <atomic>
#include <memory>
#include <optional>

#include "data/loader.h"
#include "engine/trainer.h"
#include "tools/model_file.h"
#include "tools/training_data.h"

namespace gm {

/// What a run is made of; complete before the first file is written.
struct TrainJob {
  YAML::Node yaml;  // the resolved configuration
  RunConfig run;
  std::optional<ModelFile> init;     // weights to start from; emptied by the run
  std::string out;                   // run folder
  std::string command;               // that the job comes from, for the log
  std::vector<std::string> sets;     // its --set
  std::vector<std::string> changes;  // of a resumed run's configuration, a line each for the log
  std::string resume_with;           // command line for the message after an interruption
  bool resume = false, quiet = false;
  bool learns_otherwise = false;  // some of the changes act on steps to come
};

/// Throws gm::Error when the network of the configuration cannot be built or trained as it says.
void check_network(const RunConfig& run);

/// The parts of the data as the configuration says, or as the run to be resumed has recorded them.
Split split_of(const TrainJob& job, const Dataset& data);

/// Throws gm::Error when a part is too small to train or validate on.
void check_split(const TrainJob& job, const Split& split);

/// Trains until the last epoch, an early stop or `stop`. `device_line` is the first line of the log. The
/// cache may be shared with other runs over the same data.
Trainer::Outcome train_run(TrainJob job, Device& device, const std::string& device_line,
                           const std::shared_ptr<ImageCache>& cache, const Split& split,
                           const std::atomic<bool>& stop);

}  // namespace gm
