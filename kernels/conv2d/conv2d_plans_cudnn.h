// Execution plans of cuDNN for conv2d, one a problem, kept in CudaLibraries. Private to conv2d_*cudnn.cpp.
#pragma once
#include <cudnn.h>

#include "kernels/common/cuda_libraries.h"
#include "kernels/conv2d/conv2d_cudnn_graph.h"

namespace gm::cuda::cudnn_graph {

/// Device pointers of a graph's tensors; which one is written the question's graph says.
struct Operands {
  void *x, *w, *y, *bias = nullptr, *residual = nullptr;
};

struct ConvolutionPlan : CudaPlan {
  std::unique_ptr<Graph> graph;
  std::unique_ptr<Descriptor> configuration, plan;  // a plan refers to the configuration it was made of
  bool failed = false;
};

/// The plan of a problem, null when cuDNN has none. Made at the first call: the one that the choices of
/// `libraries` name; else, where plans are timed and nothing is being captured, the fastest of the first few,
/// which becomes the choice; else the first. The timing runs on the operands, but writes to memory of its
/// own.
ConvolutionPlan* find_plan(CudaLibraries& libraries, const CudnnQuestion& q, const Operands& operands,
                           void* stream);

/// Starts a plan; throws Refusal.
void start(CudaLibraries& libraries, const Descriptor& plan, const Operands& operands, void* stream);

}  // namespace gm::cuda::cudnn_graph
