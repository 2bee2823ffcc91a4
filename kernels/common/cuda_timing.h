// Times what libraries offer and kernels of ours, on the stream they will run on.
#pragma once
#include <cstddef>
#include <functional>
#include <vector>

namespace gm {

/// Memory of the current device for the time of a measurement; data() is null where there is no room.
class CudaScratch {
 public:
  explicit CudaScratch(size_t bytes);
  ~CudaScratch();
  CudaScratch(const CudaScratch&) = delete;
  CudaScratch& operator=(const CudaScratch&) = delete;
  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
};

/// Seconds that a run of each of `count` candidates takes, by the card's clock: the least of several rounds,
/// after a run that loads its kernels. start(i) starts candidate i once and returns false where it refuses;
/// then its time is infinite. The host waits; the stream must not be captured.
std::vector<double> time_candidates(void* stream, size_t count, const std::function<bool(size_t)>& start);

}  // namespace gm
