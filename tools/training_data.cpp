#include "tools/training_data.h"

#include <fmt/format.h>

#include <filesystem>

#include "data/folds.h"
#include "kernels/common/error.h"

namespace gm {

namespace {
// Hours may pass before a run meets a picture that is not there.
void check_files(const Dataset& data) {
  int64_t missing = 0, labelled = 0;
  std::string first;
  for (int64_t row = 0; row < data.size(); ++row) {
    if (data.label(row) < 0) continue;
    ++labelled;
    std::error_code none;
    const std::string file = data.file(row);
    if (file.empty() || std::filesystem::exists(file, none)) continue;
    if (!missing++) first = file;
  }
  if (missing)
    fail(fmt::format("{}: {} of {} labelled images are missing, first {}", data.path(), missing, labelled,
                     first));
}
}  // namespace

std::shared_ptr<Dataset> open_training_data(const RunConfig& run, const std::string& one_class) {
  auto data = open_dataset(run.data_path, {.classes = run.architecture.class_names});
  const size_t classes = data->classes().size();
  if (classes == 0)
    fail(run.data_path +
         ": has no labels (a column label or class, or model.class_names and a column of shares for each)");
  if (classes == 1) fail(run.data_path + ": " + one_class);
  if (static_cast<int>(classes) != run.architecture.classes)
    fail(fmt::format("{}: has {} classes, the model {}; use --set model.classes={}{}", run.data_path, classes,
                     run.architecture.classes, classes,
                     static_cast<int>(classes) < run.architecture.classes
                         ? ", or name all with model.class_names if some have no image here"
                         : ""));
  check_files(*data);
  return data;
}

Split split_of(const RunConfig& run, const Dataset& data) {
  if (run.folds)
    return fold_split(
        make_folds(
            data, {.count = run.folds, .seed = run.split.seed, .same_sky_arcsec = run.split.same_sky_arcsec}),
        run.fold - 1);
  return make_split(data, run.split);
}

std::vector<float> balanced_weights(const Dataset& data, const std::vector<int64_t>& rows, int classes) {
  std::vector<double> counts(static_cast<size_t>(classes));
  for (const int64_t row : rows) {
    const auto shares = data.soft_label(row);
    if (shares.empty()) ++counts[static_cast<size_t>(data.label(row))];
    for (size_t k = 0; k < shares.size(); ++k) counts[k] += shares[k];
  }
  std::vector<float> weights;
  for (const double n : counts)
    weights.push_back(n > 0 ? static_cast<float>(static_cast<double>(rows.size()) / (classes * n)) : 0.f);
  return weights;
}

}  // namespace gm
