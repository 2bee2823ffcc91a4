// One device against another on a whole network: the same weights, images and random draws on both sides,
// then every layer's output, logits, loss, every parameter's gradient, the running statistics and where
// maxima lie side by side. Works for any two of the CPU, a card, simt (the card's kernels on the CPU) and the
// double-precision reference, in f32 or bf16.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "engine/batch_source.h"
#include "engine/optimizer.h"
#include "engine/safetensors.h"
#include "layers/network.h"
#include "layers/rewrites.h"

namespace gm {

struct CheckSide {
  std::string device = "cpu";  // as for open_device; "ref": the reference kernels in double precision
  bool bf16 = false;
  std::string str() const;
};

/// What runs on both sides.
struct CheckProblem {
  Architecture architecture;
  int64_t batch = 8;
  uint64_t seed = 0;                    // of the weights, dropout and stochastic depth
  const TensorFile* weights = nullptr;  // trained weights; null: initial ones
  double label_smoothing = 0;
  Fusions fusions = {};
  int threads = 0;
  std::vector<float> pixels;    // (batch, size, size, 3), 0..255
  std::vector<int32_t> labels;  // (batch)
};

/// How far `side` is from `other` in one tensor.
struct Difference {
  enum Kind { layer, logits, loss, gradient, statistics, maximum };
  static constexpr int kKinds = 6;
  Kind kind;
  std::string name;
  double max = 0, mean = 0;  // absolute
  /// L2 norm of the difference over that of the other side. To the latter, 0.5 % of the norm of all gradients
  /// (running statistics) together is added: some are zero in theory and hold nothing but rounding.
  double relative = 0;
  int64_t moved = 0;  // maxima that lie elsewhere; see compare_maxima for the other fields of a maximum
};
const char* kind_name(Difference::Kind kind);

/// A training step, forward and backward. Layers are those of the fused graph and are read in a run of their
/// own, in which every output is kept; everything else comes from a step planned as gm_train plans it. `side`
/// goes backward from the maxima of `other`, for equals within rounding are a choice (check_maxima.h).
std::vector<Difference> check_training_step(const CheckSide& side, const CheckSide& other,
                                            const CheckProblem& problem);
/// The folded network that inference uses: layers and logits.
std::vector<Difference> check_inference(const CheckSide& side, const CheckSide& other,
                                        const CheckProblem& problem);

struct StepLosses {
  int64_t step;
  double side, other;
  double relative() const;
};
/// Trains both sides on the batches of `source`, in turn, and returns the loss of every step. Epochs follow
/// one another when `steps` is more than one holds. Not for the reference.
std::vector<StepLosses> check_training(const CheckSide& side, const CheckSide& other,
                                       const CheckProblem& problem, const OptimizerConfig& optimizer,
                                       BatchSource& source, int64_t steps,
                                       const std::function<void(const StepLosses&)>& on_step = {});

}  // namespace gm
