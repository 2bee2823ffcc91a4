#include "data/dataset.h"

#include <fmt/ranges.h>

#include <cmath>
#include <filesystem>
#include <map>

#include "data/file_datasets.h"
#include "data/file_names.h"
#include "data/hdf5_dataset.h"
#include "kernels/common/error.h"

namespace gm {
namespace fs = std::filesystem;

std::shared_ptr<Dataset> open_dataset(const std::string& path, const OpenOptions& options) {
  std::error_code ec;
  auto status = fs::status(path, ec);
  if (status.type() == fs::file_type::not_found) fail(path + ": no such file or folder");
  if (ec) fail(path + ": " + ec.message());
  if (fs::is_directory(status)) {
    fs::path labels = fs::path(path) / "labels.csv";
    if (fs::exists(labels, ec)) return std::make_shared<CatalogDataset>(labels.string(), options);
    return std::make_shared<FolderDataset>(path, options);
  }
  if (is_hdf5_name(path)) return std::make_shared<Hdf5Dataset>(path, options);
  if (lower_extension(path) == ".csv") return std::make_shared<CatalogDataset>(path, options);
  if (is_image_name(path))
    return std::make_shared<FileListDataset>(path, std::vector<std::string>{path}, options);
  fail(path + ": unknown kind of data: expected .h5, .hdf5, .csv, .jpg, .png or a folder");
}

bool SkyColumns::at(int64_t i, double& to_ra, double& to_dec) const {
  if (ra.empty() || dec.empty() || !(std::abs(ra[i]) <= 360 && std::abs(dec[i]) <= 90)) return false;
  to_ra = ra[i];
  to_dec = dec[i];
  return true;
}

bool only_numbered(const std::vector<std::string>& classes) {
  for (size_t k = 0; k < classes.size(); ++k)
    if (classes[k] != std::to_string(k)) return false;
  return true;
}

void check_distinct(const std::string& where, const std::vector<std::string>& classes) {
  std::map<std::string, size_t> seen;
  for (size_t k = 0; k < classes.size(); ++k)
    if (const auto [first, fresh] = seen.emplace(classes[k], k); !fresh)
      fail(where + ": classes " + std::to_string(first->second) + " and " + std::to_string(k) +
           " are both called \"" + classes[k] + "\"");
}

void fail_unknown_class(const std::string& where, const std::string& name,
                        const std::vector<std::string>& classes) {
  fail(fmt::format("{}: class \"{}\" is not one of the model's: {}", where, name, fmt::join(classes, ", ")));
}

const std::vector<std::string>& galaxy10_classes() {
  static const std::vector<std::string> names = {"Disturbed",
                                                 "Merging",
                                                 "Round Smooth",
                                                 "In-between Round Smooth",
                                                 "Cigar Shaped Smooth",
                                                 "Barred Spiral",
                                                 "Unbarred Tight Spiral",
                                                 "Unbarred Loose Spiral",
                                                 "Edge-on without Bulge",
                                                 "Edge-on with Bulge"};
  return names;
}

const std::vector<std::string>& gz5_classes() {
  static const std::vector<std::string> names = {"round", "in-between", "cigar", "edge-on", "spiral"};
  return names;
}

}  // namespace gm
