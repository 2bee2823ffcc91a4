// gm_train --cross-validate: one run per fold, scored on images that its model has not seen.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "tools/train_run.h"

namespace gm {

struct CrossValidation {
  TrainJob job;  // of the whole; `out` is the folder around the folds' run folders
  /// The same job anew for one fold, which may have to be resumed.
  std::function<TrainJob(bool resume)> new_job;
  int folds = 5;
  std::vector<int> only;  // from 1; empty: all
  std::string device_line;
};

/// Trains the folds one after the other; each is a run folder OUT/fold1, OUT/fold2, ... with its out-of-fold
/// predictions.csv and scores.json. OUT/folds.csv says where each image is, OUT/summary.json holds the scores
/// of all finished folds with their mean and standard deviation. Scored are the weights of the last epoch:
/// the best epoch of a fold would be chosen by the images it is scored on. Finished folds are kept when
/// resumed. Ends early, and says how to resume, on the signals of stop_on_signals(). Throws gm::Error: early
/// stopping is on (it chooses an epoch), a class has fewer objects than folds, the folder holds other folds.
void cross_validate(const CrossValidation& cv, Device& device, const std::shared_ptr<ImageCache>& cache);

}  // namespace gm
