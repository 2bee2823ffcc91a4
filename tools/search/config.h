// The configuration of gm_search: that of gm_train and a section `search`.
#pragma once
#include <string>
#include <vector>

#include "kernels/common/ceil_div.h"
#include "layers/samplers.h"
#include "tools/run_config.h"

namespace gm {

/// ACC (MACs / T)^w: S2 section 3.3, with w below zero as in MnasNet (S2 prints +0.07, which would reward
/// cost).
struct RewardConfig {
  std::string metric = "accuracy";  // accuracy | macro_f1 | recall
  std::string class_name;           // of recall
  double target_macs = 20e6, exponent = -0.07;

  double reward(double score, int64_t macs) const;
};

struct SearchConfig {
  std::string path;
  YAML::Node training;  // the file without `search`: what gm_train reads
  RunConfig run;        // the same, checked; its architecture is the base of the space
  SpaceOptions space;
  std::vector<std::string> samplers{"enas", "random"};
  int64_t iterations = 300;   // of each sampler
  int64_t train_steps = 50;   // steps of the shared weights in an iteration
  int64_t children = 10;      // networks scored in an iteration
  int64_t score_batches = 1;  // validation minibatches of train.batch that a score is taken on
  int64_t cache = 32;         // children kept built
  RewardConfig reward;
  ControllerConfig controller;
  int64_t finalists = 3;  // best networks of each sampler, trained from scratch

  /// Begins the last quarter, whose networks were chosen by what the sampler has learnt.
  int64_t first_late_iteration() const { return iterations - ceil_div(iterations, 4); }
};

/// Reads and checks every key of a loaded configuration. Throws gm::Error naming file (`path`) and line.
SearchConfig read_search_config(const YAML::Node& config, const std::string& path);

/// A configuration that gm_train takes as it is: `training` with another network in it. `comment`: its first
/// line.
std::string network_config(const YAML::Node& training, Architecture network, const std::string& name,
                           const std::string& comment);

/// "0,1,2": throws gm::Error when something else than whole numbers stands there.
ChoiceVector parse_choices(const std::string& text);
std::string choices_text(const ChoiceVector& choices);

}  // namespace gm
