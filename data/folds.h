// K-fold cross-validation: every labelled image is validated once, by a model that has not seen it.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "data/split.h"

namespace gm {

struct FoldsConfig {
  int count = 5;  ///< K, at least 2
  uint64_t seed = 0;
  double same_sky_arcsec = 1.0;  ///< see SplitConfig
};

/// Fold of every row, 0 .. K-1, or -1 for unlabelled rows. Stratified: the objects of a class, in random
/// order, go one by one to the fold with the fewest images of that class (of equals, the smallest fold), so
/// that a class differs between folds by the images of one object at most. Objects of more than three images
/// and more than a tenth of a fold's go first, the largest ahead. Images of one sky object share a
/// fold. Throws gm::Error naming the class that has fewer objects than folds.
std::vector<int> make_folds(const Dataset& data, const FoldsConfig& config);

/// Validation is fold `fold`, training the others.
Split fold_split(const std::vector<int>& folds, int fold);

/// Text of folds.csv: `id_str,row,label,fold` with folds from 1, in row order.
std::string folds_csv(const Dataset& data, const std::vector<int>& folds);

}  // namespace gm
