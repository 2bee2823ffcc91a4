// Optimizers as one kernel over the flat parameter buffer, and learning-rate schedules as pure functions.
#pragma once
#include <array>
#include <functional>
#include <string>

#include "engine/parameters.h"

namespace gm {

struct OptimizerConfig {
  enum Kind { adam, adamw, sgd } kind = adamw;
  double lr = 1e-3;
  double beta1 = 0.9, beta2 = 0.999;
  double epsilon = 1e-7;
  /// True: Keras's and TensorFlow's form, epsilon outside the corrected root ("epsilon hat"); false:
  /// PyTorch's.
  bool epsilon_hat = true;
  double momentum = 0.9;    // sgd
  bool nesterov = false;    // sgd
  double weight_decay = 0;  // adamw: decoupled; adam, sgd: L2. Kernels of conv and dense layers only.
  double clip_norm = 0;     // largest global norm of a gradient; 0: any (Keras's global_clipnorm)
  /// Batches whose gradients Weights::gradients() holds the sum of at an update, which takes their mean
  /// (Keras's gradient_accumulation_steps).
  int64_t accumulate = 1;
  /// Decay of a moving average of the parameters; 0: none. In step t (from 0) it is at most (1 + t) / (10 +
  /// t), as in TensorFlow's ExponentialMovingAverage with num_updates: early weights are forgotten soon.
  double average = 0;
};

struct ScheduleConfig {
  enum Kind { constant, keras_decay, cosine } kind = constant;
  double decay = 0;  // keras_decay: lr / (1 + decay * step), counted from the end of warm-up (S1: 0.001)
  double warmup_epochs = 0;      // linear from lr / steps to lr
  double final_fraction = 0.01;  // cosine: ends at lr * final_fraction
};

/// What a value of these enumerations is called: in configurations, and in reports.
struct KindName {
  const char *key, *title;
};
/// In the order of the enumerations.
inline constexpr auto kOptimizers =
    std::to_array<KindName>({{"adam", "Adam"}, {"adamw", "AdamW"}, {"sgd", "SGD"}});
inline constexpr auto kSchedules =
    std::to_array<KindName>({{"constant", "constant"}, {"keras_decay", "Keras decay"}, {"cosine", "cosine"}});
/// These throw std::out_of_range for a kind that the table lacks.
constexpr KindName optimizer_name(OptimizerConfig::Kind kind) {
  return kOptimizers.at(static_cast<size_t>(kind));
}
constexpr KindName schedule_name(ScheduleConfig::Kind kind) {
  return kSchedules.at(static_cast<size_t>(kind));
}

/// Learning rate of optimizer step `step` (0-based) out of `total`, `warmup` of which are warm-up.
double learning_rate(const ScheduleConfig& schedule, double lr, int64_t step, int64_t warmup, int64_t total);

/// Bytes an Optimizer allocates on the processor; a card needs some kilobytes more for clip_norm.
size_t optimizer_bytes(const OptimizerConfig& config, const ParameterTable& table);

class Optimizer {
 public:
  Optimizer(Device& device, const OptimizerConfig& config, const ParameterTable& table, Weights& weights);

  /// One update from weights.gradients(). step counts updates from 0.
  void update(double lr, int64_t step);
  /// The two halves of it: the hyperparameters of one step (input `hyper` of the ops adam and sgd, then the
  /// decay of the average), and the kernels that read them from the device's memory.
  static constexpr int kHyper = 9;
  using Hyper = std::array<float, kHyper>;
  Hyper hyper(double lr, int64_t step) const;
  void apply(const View& hyper);

  /// The average starts from the present weights; to be called before the first step.
  void start_average();
  /// Runs `use` while weights.master() holds the average: to evaluate or to save it. Without one: as it is.
  void with_average(const std::function<void()>& use);

  size_t bytes() const {
    return moment1_.bytes() + moment2_.bytes() + mask_.bytes() + hyper_.bytes() + average_.bytes() +
           norm_.bytes();
  }
  /// Adam's m and v, SGD's velocity (second buffer empty): saved in checkpoints.
  Buffer& moment1() { return moment1_; }
  Buffer& moment2() { return moment2_; }
  /// Empty without OptimizerConfig::average.
  Buffer& average() { return average_; }
  const OptimizerConfig& config() const { return config_; }

 private:
  Device& device_;
  OptimizerConfig config_;
  Weights& weights_;
  int64_t elements_;
  Buffer moment1_, moment2_, mask_, hyper_, average_;
  Buffer norm_;  // of clip_norm: the norm, then its scratch
};

}  // namespace gm
