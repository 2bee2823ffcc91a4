// Execution plans for conv2d, one a problem, of cuDNN and for 1x1 also of cuBLASLt, kept in CudaLibraries.
// Private to conv2d_*cudnn.cpp.
#pragma once
#include <cudnn.h>

#include "kernels/common/cuda_libraries.h"
#include "kernels/conv2d/conv2d_cudnn_graph.h"

namespace gm::cuda::cudnn_graph {

struct ConvolutionPlan : CudaPlan {
  std::unique_ptr<Graph> graph;
  // A plan refers to the configuration it was made of. Both null: cuBLASLt's product.
  std::unique_ptr<Descriptor> configuration, plan;
  bool failed = false;
};

/// The plan of a problem, null when there is none. Made at the first call: the one that the libraries'
/// choices name; else, where plans are timed and nothing is being captured, the fastest of the first few,
/// which becomes the choice; else the first. Of a 1x1 convolution cuBLASLt's product is the last of them.
/// Outside of a capture a candidate that does not give what our own kernels give is left out, with a line on
/// standard error. Timing and check run on the operands, but write to memory of their own.
ConvolutionPlan* find_plan(const Context& ctx, const CudnnQuestion& q, const ConvOperands& operands);

/// Starts a plan (null: the product); throws Refusal.
void start(const Context& ctx, const CudnnQuestion& q, const Descriptor* plan, const ConvOperands& operands);

}  // namespace gm::cuda::cudnn_graph
