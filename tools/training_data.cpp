#include "tools/training_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "data/folds.h"
#include "data/parallel.h"
#include "kernels/common/error.h"

namespace gm {

namespace {
// Hours may pass before a run meets a picture that is not there. Network file systems take long to answer,
// but many at a time.
void check_files(const Dataset& data) {
  constexpr int kAtATime = 16;
  std::vector<char> gone(static_cast<size_t>(data.size()));
  parallel_for(data.size(), kAtATime, [&](int64_t row) {
    std::error_code none;
    if (data.label(row) < 0) return;
    const std::string file = data.file(row);
    gone[static_cast<size_t>(row)] = !file.empty() && !std::filesystem::exists(file, none);
  });
  const auto missing = std::ranges::count(gone, 1);
  if (missing == 0) return;
  int64_t labelled = 0;
  for (int64_t row = 0; row < data.size(); ++row) labelled += data.label(row) >= 0;
  fail(fmt::format("{}: {} of {} labelled images are missing, first {}", data.path(), missing, labelled,
                   data.file(std::ranges::find(gone, 1) - gone.begin())));
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
