// The current CUDA device as contender_pays wants it.
#pragma once
#include <memory>
#include <vector>

#include "kernels/common/contender.h"
#include "kernels/common/cuda_timing.h"

namespace gm {

/// Everything happens on one stream, which must not be captured; reading and timing wait for it.
class CudaTrial : public TrialDevice {
 public:
  explicit CudaTrial(void* stream) : stream_(stream) {}
  void* allocate(size_t bytes) override;
  void copy(void* to, const void* from, size_t bytes) override;
  void spoil(const View& tensor) override;
  std::vector<float> read(const View& tensor) override;
  std::vector<double> time(size_t count, const std::function<bool(size_t)>& start) override;

 private:
  void* stream_;
  std::vector<std::unique_ptr<CudaScratch>> memory_;
};

}  // namespace gm
