#include "data/joined_dataset.h"

#include <algorithm>
#include <functional>

#include "kernels/common/error.h"

namespace gm {

namespace {
/// Counts a reading when it has ended, one that failed too.
class Reading {
 public:
  Reading(const Dataset& set, std::atomic<int64_t>& reads) : set_(set), reads_(reads) {}
  ~Reading() {
    if (++reads_ % set_.size() == 0) set_.release();
  }
  Reading(const Reading&) = delete;
  Reading& operator=(const Reading&) = delete;

 private:
  const Dataset& set_;
  std::atomic<int64_t>& reads_;
};
}  // namespace

JoinedDataset::JoinedDataset(std::vector<std::shared_ptr<const Dataset>> sets)
    : sets_(std::move(sets)), first_{0}, reads_(sets_.size()) {
  if (sets_.empty()) fail("data: no sets to join");
  for (const auto& set : sets_) first_.push_back(first_.back() + set->size());
  path_ = sets_[0]->path();
  if (sets_.size() > 1) path_ += " and " + std::to_string(sets_.size() - 1) + " more";
}

std::pair<size_t, int64_t> JoinedDataset::place(int64_t i) const {
  const auto next = std::upper_bound(first_.begin(), first_.end(), i);
  return {static_cast<size_t>(next - first_.begin()) - 1, i - *(next - 1)};
}

std::string JoinedDataset::id(int64_t i) const {
  const auto [set, row] = place(i);
  return sets_[set]->id(row);
}

bool JoinedDataset::sky(int64_t i, double& ra, double& dec) const {
  const auto [set, row] = place(i);
  return sets_[set]->sky(row, ra, dec);
}

Image JoinedDataset::read(int64_t i) const {
  const auto [set, row] = place(i);
  const Reading reading(*sets_[set], reads_[set]);
  return sets_[set]->read(row);
}

size_t JoinedDataset::image_bytes() const {
  const size_t bytes = sets_[0]->image_bytes();
  const bool same =
      std::all_of(sets_.begin(), sets_.end(), [&](const auto& set) { return set->image_bytes() == bytes; });
  return same ? bytes : 0;
}

size_t JoinedDataset::buffer_bytes() const {
  size_t sum = 0;
  for (const auto& set : sets_) sum += set->buffer_bytes();
  return sum;
}

void JoinedDataset::release() const {
  for (const auto& set : sets_) set->release();
}

std::string JoinedDataset::file(int64_t i) const {
  const auto [set, row] = place(i);
  return sets_[set]->file(row);
}

const std::string& JoinedDataset::path_of(int64_t i) const {
  const auto [set, row] = place(i);
  return sets_[set]->path_of(row);
}

SharedIds shared_ids(const Dataset& data) {
  // Sixteen bytes an image where the ids themselves may take hundreds.
  std::vector<std::pair<size_t, int64_t>> marks;
  marks.reserve(static_cast<size_t>(data.size()));
  for (int64_t row = 0; row < data.size(); ++row)
    marks.emplace_back(std::hash<std::string>{}(data.id(row)), row);
  std::sort(marks.begin(), marks.end());
  SharedIds shared;
  for (size_t k = 1, start = 0; k < marks.size(); ++k) {
    if (marks[k].first != marks[start].first) start = k;
    if (start == k || data.id(marks[k].second) != data.id(marks[start].second)) continue;
    ++shared.rows;
    if (shared.first >= 0 && shared.first < marks[k].second) continue;
    shared.first = marks[k].second;
    shared.earlier = marks[start].second;
  }
  return shared;
}

}  // namespace gm
