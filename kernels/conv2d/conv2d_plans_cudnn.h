// Execution plans for conv2d, one a problem, of cuDNN, for products also of cuBLASLt and else, where
// they serve the problem, our own kernels, kept in CudaLibraries. Private to conv2d_*cudnn.cpp.
#pragma once
#include <cudnn.h>

#include "kernels/common/cuda_libraries.h"
#include "kernels/conv2d/conv2d_cudnn_graph.h"

namespace gm::cuda::cudnn_graph {

/// Who answers a question.
enum class AnsweredBy {
  cudnn,   // a plan
  cublas,  // cuBLASLt's product
  own      // our kernels that are no general ones
};
struct Answer {
  AnsweredBy by = AnsweredBy::cudnn;
  const Descriptor* plan = nullptr;  // cuDNN's
};

struct ConvolutionPlan : CudaPlan {
  std::unique_ptr<Graph> graph, sum;  // sum: the gradient added to zeros, see also_as_sum()
  AnsweredBy by = AnsweredBy::cudnn;
  std::unique_ptr<Descriptor> configuration, plan;  // a plan refers to the configuration it was made of
  bool adds = false;                                // of the graph `sum`
  bool failed = false;

  Answer answer() const { return {by, plan.get()}; }
};

/// The plan of a problem, null when there is none. Made at the first call: the one that the libraries'
/// choices name; else, where plans are timed and nothing is being captured, the fastest of the first few,
/// which becomes the choice; else the first. The last of them are cuBLASLt's product and our own kernels for
/// few channels or 1x1, where there are such. Outside of a capture a candidate that does not give what our
/// own general kernels give is left out, with a line on standard error. Timing and check run on the operands,
/// but write to memory of their own.
ConvolutionPlan* find_plan(const Context& ctx, const CudnnQuestion& q, const ConvOperands& operands);

/// Starts an answer; throws Refusal. operands.residual of a gradient of weights: the plan adds, and finds
/// zeros there.
void start(const Context& ctx, const CudnnQuestion& q, const Answer& answer, const ConvOperands& operands);

}  // namespace gm::cuda::cudnn_graph
