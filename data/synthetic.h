// Synthetic galaxies: a demo and a test bed that needs no download. Accuracies on them say nothing about the
// sky.
#pragma once
#include <cstdint>
#include <string>

#include "data/dataset.h"

namespace gm {

/// Which classes are drawn: the ten of Galaxy10 DECals or the five clean ones of S2.
enum class SyntheticSet { galaxy10, gz5 };

/// `count` galaxies of `size` px, rendered when read. Labels go round: row i has label i mod classes. Pixels
/// depend on (set, seed, row, size) alone. Throws gm::Error for count outside 1..2^31 or size outside 8..4096
/// px.
class SyntheticDataset : public Dataset {
 public:
  SyntheticDataset(SyntheticSet set, int64_t count, int size, uint64_t seed);
  int64_t size() const override { return count_; }
  const std::vector<std::string>& classes() const override;
  int label(int64_t i) const override { return static_cast<int>(i % static_cast<int64_t>(classes().size())); }
  std::string id(int64_t i) const override;
  Image read(int64_t i) const override;
  const std::string& path() const override { return name_; }

 private:
  SyntheticSet set_;
  int64_t count_;
  int px_;
  uint64_t seed_;
  std::string name_ = "synthetic galaxies";
};

}  // namespace gm
