// Event files for TensorBoard in a run folder: scalars, histograms and pictures.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "data/image.h"

namespace gm {

/// Counts of the finite values of a tensor in buckets of equal width between the least and the greatest, 30
/// as in tf.summary.histogram; a single one where all values are the same, none without finite values.
struct Histogram {
  static constexpr int kBuckets = 30;
  double min = 0, max = 0, sum = 0, sum_squares = 0;
  std::vector<double> right_edges, counts;
};
Histogram histogram_of(std::span<const float> values);

/// Appends to events.out.tfevents.<time>.<pid> in `folder`; a resumed run adds a file of its own, as
/// TensorBoard expects. One record a call. Throws gm::Error when it cannot write.
class EventWriter {
 public:
  explicit EventWriter(const std::string& folder);
  void scalars(int64_t step, const std::vector<std::pair<std::string, double>>& values);
  /// Tags of empty histograms are left out.
  void histograms(int64_t step, const std::vector<std::pair<std::string, Histogram>>& values);
  void picture(int64_t step, const std::string& tag, const Image& image);

 private:
  void record(const std::string& event);
  std::string path_;
};

/// CRC-32C (Castagnoli), the checksum of the record format.
uint32_t crc32c(const std::string& bytes);

}  // namespace gm
