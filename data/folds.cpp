#include "data/folds.h"

#include <algorithm>
#include <tuple>

#include "data/csv.h"
#include "kernels/common/error.h"

namespace gm {

std::vector<int> make_folds(const Dataset& data, const FoldsConfig& config) {
  if (config.count < 2) fail("cross-validation needs at least 2 folds");
  const size_t count = static_cast<size_t>(config.count);
  std::vector<int> folds(static_cast<size_t>(data.size()), -1);
  std::vector<int64_t> images(count, 0);  // of all classes, by fold
  for (auto& [label, objects] : shuffled_objects(data, config.seed, config.same_sky_arcsec)) {
    if (objects.size() < count)
      fail(data.path() + ": class '" + data.classes()[static_cast<size_t>(label)] + "' has " +
           std::to_string(objects.size()) + " object" + (objects.size() == 1 ? "" : "s") +
           ", fewer than the " + std::to_string(count) + " folds");
    // Large objects first, so that the others can even them out.
    size_t images_of_class = 0;
    for (const auto& rows : objects) images_of_class += rows.size();
    const size_t large = std::max<size_t>(3, images_of_class / count / 10);
    std::stable_sort(objects.begin(), objects.end(), [&](const auto& a, const auto& b) {
      return std::max(a.size(), large) > std::max(b.size(), large);
    });
    std::vector<int64_t> of_class(count, 0);
    for (const auto& rows : objects) {
      size_t to = 0;
      for (size_t f = 1; f < count; ++f)
        if (std::tie(of_class[f], images[f]) < std::tie(of_class[to], images[to])) to = f;
      for (int64_t row : rows) folds[static_cast<size_t>(row)] = static_cast<int>(to);
      of_class[to] += static_cast<int64_t>(rows.size());
      images[to] += static_cast<int64_t>(rows.size());
    }
  }
  return folds;
}

Split fold_split(const std::vector<int>& folds, int fold) {
  Split split;
  for (size_t row = 0; row < folds.size(); ++row)
    if (folds[row] >= 0) (folds[row] == fold ? split.val : split.train).push_back(static_cast<int64_t>(row));
  return split;
}

std::string folds_csv(const Dataset& data, const std::vector<int>& folds) {
  std::string text = "id_str,row,label,fold\n";
  for (int64_t row = 0; row < data.size(); ++row)
    if (const int fold = folds[static_cast<size_t>(row)]; fold >= 0)
      text += csv_cell(data.id(row)) + "," + std::to_string(row) + "," + std::to_string(data.label(row)) +
              "," + std::to_string(fold + 1) + "\n";
  return text;
}

}  // namespace gm
