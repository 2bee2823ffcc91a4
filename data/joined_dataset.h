// Several data sets as one.
#pragma once
#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "data/dataset.h"

namespace gm {

/// The images of at least one set, set after set, unlabelled: the sets may be of different classes. A set of
/// which all images have been read is released: who reads in order has no more than a few open.
class JoinedDataset : public Dataset {
 public:
  explicit JoinedDataset(std::vector<std::shared_ptr<const Dataset>> sets);
  int64_t size() const override { return first_.back(); }
  const std::vector<std::string>& classes() const override { return classes_; }
  int label(int64_t) const override { return -1; }
  std::string id(int64_t i) const override;
  bool sky(int64_t i, double& ra, double& dec) const override;
  Image read(int64_t i) const override;
  size_t image_bytes() const override;
  size_t buffer_bytes() const override;
  void release() const override;
  std::string file(int64_t i) const override;
  const std::string& path() const override { return path_; }
  const std::string& path_of(int64_t i) const override;

 private:
  /// Which set holds row `i`, and its row there.
  std::pair<size_t, int64_t> place(int64_t i) const;

  std::vector<std::shared_ptr<const Dataset>> sets_;
  std::vector<int64_t> first_;  // row of each set's first image; at the end the number of all
  mutable std::vector<std::atomic<int64_t>> reads_;  // of each set
  std::vector<std::string> classes_;                 // none
  std::string path_;
};

/// Rows of a set whose id an earlier row has, and the first of them with that earlier row.
struct SharedIds {
  int64_t rows = 0, first = -1, earlier = -1;
};
SharedIds shared_ids(const Dataset& data);

}  // namespace gm
