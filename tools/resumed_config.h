// The configuration of a run that goes on: the one it began with, in its folder, but for what may change.
#pragma once
#include <string>
#include <vector>

#include "tools/train_run.h"

namespace gm {

/// What may change between a run's beginning and its end. place: where and how fast images are read; recipe:
/// also how the same network learns from the same images.
enum class MayChange { place, recipe };

/// Makes the configuration in `file` that of the job; keys that the job's own gives may differ as far as they
/// may change. Returns one line for each that does. Throws gm::Error for another difference: results would
/// then be of neither configuration.
std::vector<std::string> take_up_config(TrainJob& job, const std::string& file, MayChange may);

}  // namespace gm
