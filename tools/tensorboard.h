// Scalars for TensorBoard: an event file in the run folder, one record per epoch.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace gm {

/// Appends to events.out.tfevents.<time>.<pid> in `folder`; a resumed run adds a file of its own, as
/// TensorBoard expects. Throws gm::Error when it cannot write.
class EventWriter {
 public:
  explicit EventWriter(const std::string& folder);
  void scalars(int64_t step, const std::vector<std::pair<std::string, double>>& values);

 private:
  void record(const std::string& event);
  std::string path_;
};

/// CRC-32C (Castagnoli), the checksum of the record format.
uint32_t crc32c(const std::string& bytes);

}  // namespace gm
