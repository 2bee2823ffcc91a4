// A training run from its configuration to its end: for train_run. What it does is in train_run.cpp, what it
// says of itself in training_run_log.cpp.
#pragma once
#include <memory>
#include <optional>
#include <string>

#include "layers/rewrites.h"
#include "tools/cli.h"
#include "tools/run_folder.h"
#include "tools/train_run.h"
#include "tools/training_board.h"

namespace gm {

class TrainingRun {
 public:
  TrainingRun(TrainJob job, Device& device, const std::shared_ptr<ImageCache>& cache, const Split& split);

  /// As train_run, once.
  Trainer::Outcome operator()(const std::string& device_line, const std::atomic<bool>& stop);

 private:
  std::string initialize();
  void record(const RunFolder& folder) const;
  void take_up(const RunFolder& folder);

  void log_beginning(Log& log, const std::string& device_line, const std::string& started) const;
  size_t log_memory(Log& log) const;
  void log_epoch(Log& log, const EpochMetrics& m, bool best) const;
  void log_end(Log& log, Trainer::Outcome outcome, size_t budget, const RunFolder& folder) const;
  TrainerEvents events(Log& log, TrainingBoard& board, Progress& progress);

  const std::shared_ptr<const Dataset>& data() const { return cache_->data(); }
  uint64_t seed() const { return static_cast<uint64_t>(run_.train.seed); }
  LoaderConfig loading(bool training) const;
  BuildOptions building(bool training) const;
  TrainerConfig training_config() const;

  TrainJob job_;
  const RunConfig& run_ = job_.run;
  Device& device_;
  const std::shared_ptr<ImageCache>& cache_;
  const Split& split_;
  std::unique_ptr<ImagePool> images_;  // of a graphics card, which augments by itself
  Loader training_, validation_;
  ParameterTable table_;
  NetworkGraph graph_;
  FoldedNetwork folded_;
  Weights weights_, eval_weights_;
  std::optional<Trainer> trainer_;
};

}  // namespace gm
