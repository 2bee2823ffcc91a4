// Train / validation / test: stratified per class, seeded, the same sky object never on two sides.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "data/dataset.h"

namespace gm {

struct SplitConfig {
  double val = 0.1;   ///< share of every class, 0 .. 1
  double test = 0.0;  ///< share of every class; val + test < 1
  uint64_t seed = 0;
  /// Images whose positions are this close (chained) are one object and stay together; 0 switches it off.
  double same_sky_arcsec = 1.0;
};

/// Rows of a dataset, each list ascending.
struct Split {
  std::vector<int64_t> train, val, test;
};

/// Splits the labelled rows of `data`; unlabelled rows are in no part. In every class, val and test get
/// round(share * n) images, at least one where the share is not 0 and the class has enough objects for every
/// part to have one; train keeps at least one. Objects with several images may move these counts a little:
/// one that would exceed a count by more than two images and a tenth stays in training, unless all would.
/// Throws gm::Error: shares out of range, no labelled rows.
Split make_split(const Dataset& data, const SplitConfig& config);

/// Numbers 0 .. n-1 of sky objects by row; rows without a position are objects of their own.
std::vector<int64_t> sky_groups(const Dataset& data, double arcsec);

/// The sky objects of every class in a seeded random order, each as its rows: what is dealt out to the parts
/// of a split. An object whose images disagree about the class belongs to that of its first. Unlabelled rows
/// are in none. Throws gm::Error when no row has a label.
std::map<int, std::vector<std::vector<int64_t>>> shuffled_objects(const Dataset& data, uint64_t seed,
                                                                  double same_sky_arcsec);

/// split.csv: `id_str,row,label,split` with split = train | val | test, in row order, written atomically.
void write_split(const std::string& path, const Dataset& data, const Split& split);
/// Reads it back for the same data. Throws gm::Error with the line when a row does not exist, is listed
/// twice, or has another id than in `data` (then the data are not those that were split); with same_labels,
/// and where ids are but the numbers of the rows, another class as well.
Split read_split(const std::string& path, const Dataset& data, bool same_labels = false);

}  // namespace gm
