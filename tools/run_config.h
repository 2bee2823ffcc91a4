// The sections of a configuration besides model and input: data, augment, optimizer, schedule, train.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "data/split.h"
#include "data/transform.h"
#include "engine/optimizer.h"
#include "layers/blocks.h"

namespace gm {

struct TrainSettings {
  int64_t epochs = 30, batch = 32;
  int64_t seed = 0;
  bool bf16 = false, tf32 = false;  // f32 otherwise; tf32 is DeviceOptions'
  const char* precision() const { return bf16 ? "bf16" : tf32 ? "tf32" : "f32"; }
  double label_smoothing = 0, mixup = 0, cutmix = 0;
  int64_t checkpoint_steps = 0, patience = 0;
  bool restore_best = false;
  bool recompute = false;
  bool deterministic = true;  // a card's library kernels: DeviceOptions
  bool balanced = false;      // loss weights n / (classes * n_class): scikit-learn's class_weight="balanced"
  int64_t board_epochs = 10;  // between histograms and pictures for TensorBoard; 0: scalars only
  std::string init;           // weight file to start from
  FreezeSpec freeze;
  std::map<std::string, double> l2;  // see BuildOptions
};

struct RunConfig {
  Architecture architecture;
  std::string data_path;
  SplitConfig split;
  int folds = 0, fold = 1;  // folds > 0: validate on fold `fold` (from 1) instead of a share
  int workers = 0;
  size_t cache_bytes = 0;
  TransformConfig transform;
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  TrainSettings train;
};

/// Reads every section strictly; `where` names the file in errors. The transform's size is the input size.
RunConfig read_run_config(const YAML::Node& config, const std::string& where);

/// Sets the path that `config` has under SECTION.KEY to the one given, unless that is empty, and makes it
/// absolute: config.yaml in a run's folder may be read from elsewhere.
void set_path(YAML::Node& config, const std::string& section, const std::string& key,
              const std::string& given);

/// Whether a `--set` gives this key or one below it, by its path or within a section: `model={se: 0.25}`
/// gives model.se.
bool is_set(const std::vector<std::string>& sets, const std::string& key);

/// `augment` alone, for a network of this input size: also stored in weight files for inference.
TransformConfig read_transform(const YAML::Node& config, const std::string& where, int input_size);

}  // namespace gm
