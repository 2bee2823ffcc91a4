// What TensorBoard shows of a training run.
#pragma once
#include <string>
#include <vector>

#include "data/loader.h"
#include "engine/trainer.h"
#include "tools/pictures/tensorboard.h"

namespace gm {

class TrainingBoard {
 public:
  /// References must outlive the board.
  struct Sources {
    Device& device;
    const ParameterTable& table;
    const Weights& weights;
    ImageCache& images;
    std::vector<std::string> classes;
    Transform training;
    std::vector<int64_t> rows;  // training images
    uint64_t seed = 0;
  };
  static constexpr size_t kSamples = 16;  // training images shown, spread over `rows`

  /// `every`: epochs between histograms and pictures, beginning with the first; 0: scalars only.
  TrainingBoard(const std::string& folder, int64_t every, Sources sources);
  /// Writes an epoch that has just been validated: scalars; histograms of the trainable parameters (not of
  /// their moving average) and of their last gradients, as the optimizer used them; samples as this epoch
  /// augmented them, before any mixing; the confusion matrix of the validation.
  void epoch(const EpochMetrics& m, const ConfusionMatrix& confusion);

 private:
  int64_t every_;
  Sources from_;
  EventWriter writer_;
};

}  // namespace gm
