// One training run: data, network and trainer put together, a run folder and a log written.
#pragma once
#include <atomic>
#include <memory>
#include <optional>

#include "data/loader.h"
#include "engine/trainer.h"
#include "tools/model_file.h"
#include "tools/run_config.h"

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

/// The labelled data of a configuration. Names that model.class_names gives are met by name, or name the
/// classes of data that only number them. Throws gm::Error when there are no labels, one class only, which
/// `one_class` says, other classes than the model's, or files of labelled images that do not exist.
std::shared_ptr<Dataset> open_training_data(
    const RunConfig& run, const std::string& one_class = "has one class; there is nothing to learn");

/// Throws gm::Error when the network of the configuration cannot be built or trained as it says.
void check_network(const RunConfig& run);

/// The parts of the data that a configuration trains and validates on: a fold where data.folds asks for one.
Split split_of(const RunConfig& run, const Dataset& data);
/// The same, or what the run to be resumed has recorded.
Split split_of(const TrainJob& job, const Dataset& data);

/// Throws gm::Error when a part is too small to train or validate on.
void check_split(const TrainJob& job, const Split& split);

/// Trains until the last epoch, an early stop or `stop`. `device_line` is the first line of the log. The
/// cache may be shared with other runs over the same data.
Trainer::Outcome train_run(TrainJob job, Device& device, const std::string& device_line,
                           const std::shared_ptr<ImageCache>& cache, const Split& split,
                           const std::atomic<bool>& stop);

}  // namespace gm
