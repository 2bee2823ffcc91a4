// The images that a configuration trains and validates on.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "data/split.h"
#include "tools/run_config.h"

namespace gm {

/// The labelled data of a configuration. Names that model.class_names gives are met by name, or name the
/// classes of data that only number them. Throws gm::Error when there are no labels, one class only, which
/// `one_class` says, other classes than the model's, or files of labelled images that do not exist.
std::shared_ptr<Dataset> open_training_data(
    const RunConfig& run, const std::string& one_class = "has one class; there is nothing to learn");

/// The parts of the data: a fold where data.folds asks for one.
Split split_of(const RunConfig& run, const Dataset& data);

/// Weights of the classes in the loss (train.class_weights): n / (classes * n_class) of these rows, 0 for a
/// class without images. Shares of an image count as such.
std::vector<float> balanced_weights(const Dataset& data, const std::vector<int64_t>& rows, int classes);

}  // namespace gm
