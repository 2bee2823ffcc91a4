// ENAS's controller: an LSTM that writes a network down choice by choice, taught by REINFORCE.
#pragma once
#include <memory>

#include "engine/optimizer.h"
#include "engine/safetensors.h"
#include "engine/session.h"
#include "kernels/common/philox.h"

namespace gm {

/// Defaults: Pham et al. 2018 (arXiv:1802.03268), section 2.2, 3.1 and their code. S2 prints the learning
/// rate and 300 iterations.
struct ControllerConfig {
  int hidden = 100;                             // units of the LSTM and of the embedding
  double temperature = 5, tanh_constant = 2.5;  // logits become tanh_constant * tanh(logits / temperature)
  double entropy_weight = 1e-4;
  double baseline_decay = 0.99;  // moving average of the reward, which starts at the first mean
  double lr = 3.5e-4;            // Adam
};

/// One softmax of the sequence. Decisions of a kind share its weights and the embedding of its options.
struct Decision {
  int kind = 0, options = 1;
};

/// At every step: x = embedding of the last decision (a start symbol first); gates = W x + U h; h, c = LSTM;
/// logits = V_kind h. No biases; weights start uniform in +-0.1. Two engine graphs share the
/// parameters: one step for sampling, the whole sequence for learning.
class Controller {
 public:
  /// batch: sequences that learn() gets. The device must outlive the controller; a CPU with one thread is
  /// fastest.
  Controller(Device& device, std::vector<Decision> decisions, const ControllerConfig& config, int64_t batch,
             uint64_t seed);
  ~Controller();

  /// One option for each decision, drawn from the current policy.
  std::vector<int> sample(PhiloxStream& draws);
  /// One Adam step on  mean over sequences of  sum over decisions of
  ///   -(reward - baseline) log p(decision) - entropy_weight H
  /// The first call sets the baseline to its mean reward; every call moves it after the step.
  /// `limited`: of what sample() drew, only sequences within a limit were taken. Such a sequence has the
  /// probability p / Z, Z the share within the limit, and the gradient of -log Z is missing above. Several of
  /// them are therefore compared with their own mean: the advantages add up to 0, and what is the same for
  /// all sequences cancels. Against the moving baseline, rewards that rise as the shared weights learn would
  /// raise Z, that is, draw the policy to whatever is within the limit.
  void learn(const std::vector<std::vector<int>>& sequences, const std::vector<double>& rewards,
             bool limited = false);

  double baseline() const { return baseline_; }
  /// Mean entropy of a decision in the sequences sampled since the last learn(), or where there are none in
  /// those before it, as a share of the largest possible.
  double entropy() const {
    return entropy_samples_ ? entropy_sum_ / static_cast<double>(entropy_samples_) : entropy_;
  }

  /// Weights, moments, baseline and step: what load() needs to go on bit for bit. load() throws gm::Error
  /// naming the file, and changes nothing, when one of them is absent, damaged or of another search space.
  void save(TensorFile& file) const;
  void load(const TensorFile& file);

 private:
  struct Graphs;
  std::vector<Decision> decisions_;
  ControllerConfig config_;
  int64_t batch_, step_ = 0;
  int symbols_ = 1;            // start, then the options of each kind
  std::vector<int> first_of_;  // first symbol of a kind
  ParameterTable table_;
  std::unique_ptr<Graphs> graphs_;
  double baseline_ = 0, entropy_ = 1, entropy_sum_ = 0;
  int64_t entropy_samples_ = 0;
};

}  // namespace gm
