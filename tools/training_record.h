// The metrics.csv of a training run, and its curves.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "tools/pictures/chart.h"

namespace gm {

/// One entry per epoch, counted from 1.
struct TrainingRecord {
  std::vector<double> epoch, train_loss, train_accuracy, val_loss, val_accuracy, lr;
  /// Epoch of the lowest validation loss: that of best.safetensors. 0 without epochs.
  int best_epoch() const;
};

/// The record beside a weight file, or none where there is no metrics.csv. Throws gm::Error naming the line
/// when it is not one.
std::optional<TrainingRecord> training_record_of(const std::string& weights);
/// The same for who can do without: nothing for a metrics.csv of another program too.
std::optional<TrainingRecord> training_record_if_any(const std::string& weights);

/// S1 Fig. 5: training and validation against the epoch.
Chart loss_chart(const TrainingRecord& r);
Chart accuracy_chart(const TrainingRecord& r);

}  // namespace gm
