// Whether a library's plan computes what it was asked for. Private to conv2d_*cudnn.cpp.
#pragma once
#include <vector>

#include "kernels/common/cuda_timing.h"
#include "kernels/conv2d/conv2d_plans_cudnn.h"

namespace gm::cuda::cudnn_graph {

/// The result of our own general kernels for one problem, and the memory that plans write theirs to.
class OwnResult {
 public:
  /// Runs our own kernels on the operands and waits for them.
  OwnResult(const Context& ctx, const CudnnQuestion& q, const ConvOperands& operands);
  /// False where there was no memory for the result.
  bool known() const { return !want_.empty(); }
  /// By how much of its size an answer is off, in its first and last elements: about 1 for a kernel
  /// that is wrong. 0 where our result is not known. Throws Refusal when it does not run.
  /// zeros: memory for a plan that adds, else null.
  double off(const Answer& answer, void* zeros);

 private:
  std::vector<float> ends(DType type) const;

  const Context& ctx_;
  CudnnQuestion q_;
  ConvOperands operands_;
  CudaScratch result_;
  std::vector<float> want_;
};

}  // namespace gm::cuda::cudnn_graph
