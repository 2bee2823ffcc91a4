// cuDNN path of conv2d: the backend (graph) C API, one plan per problem, kept in CudaLibraries. A problem
// that cuDNN refuses or fails is remembered and never asked again; the caller then runs our own kernels.
#pragma once
#include <string>
#include <vector>

#include "kernels/common/op.h"
#include "kernels/conv2d/conv2d.h"

namespace gm::cuda {

/// What a cuDNN call left to do.
enum class CudnnResult {
  nothing,   // did not run: no library, or no plan for the problem
  complete,  // the result is in its place
  plain,     // forward: y holds the convolution without bias, activation and residual
  sums_f32,  // backward weights: dw of this call is in the op's workspace as f32 ...
  sums_bf16  // ... or bf16, still to be added to or stored in dw
};

/// The graphs conv2d asks cuDNN for.
enum class CudnnGraph {
  forward,            // y = conv(x, w)
  forward_epilogue,   // y = act(conv(x, w) [+ bias]) [+ residual]
  backward_data,      // dx = conv^T(dy, w)
  backward_data_add,  // dx += conv^T(dy, w)
  weights_same,       // dw = x (*) dy in the dtype of x
  weights_f32,        // bf16 operands, f32 dw
  weights_f32_add     // the same, dw = x (*) dy + residual
};
struct CudnnQuestion {
  CudnnGraph graph;
  ConvGeometry g;
  bool bias = false, residual = false;
  Act act = Act::none;
  bool deterministic = true;
  bool tf32 = false;
};

/// fused: with what follows the convolution in its own kernel, where there is such a plan.
CudnnResult cudnn_conv_forward(const OpCall& call, const ConvGeometry& g, bool fused);
/// What a fused call asks.
CudnnQuestion epilogue_question(const OpCall& call, const ConvGeometry& g);
CudnnResult cudnn_conv_backward_data(const OpCall& call, const ConvGeometry& g);
CudnnResult cudnn_conv_backward_weights(const OpCall& call, const ConvGeometry& g);

constexpr bool gradient_of_data(CudnnGraph g) {
  return g == CudnnGraph::backward_data || g == CudnnGraph::backward_data_add;
}
constexpr bool gradient_of_weights(CudnnGraph g) { return g >= CudnnGraph::weights_same; }
/// Device pointers of a graph's tensors; which one is written the question's graph says. weights_f32 takes
/// as `residual` memory for zeros, as large as the gradient.
struct ConvOperands {
  void *x, *w, *y, *bias = nullptr, *residual = nullptr;
};
/// True where cuDNN is asked for the gradient of bf16 weights in f32, by a kernel that it compiles for the
/// purpose. On an H200 with cuDNN 9.19 the one for a 1x1 filter with stride 2, 20 channels and 12 filters
/// gave wrong sums. Those for larger filters and multiples of 8, which networks have, were right, and so were
/// the precompiled ones, which round the sums to bf16.
inline bool sums_in_f32(const ConvGeometry& g) { return g.kernel > 1 && g.c % 8 == 0 && g.k % 8 == 0; }
/// True where a gradient is asked for as a sum too (weights_f32_add, of zeros): cuDNN 9.19 offers fifteen
/// configurations of that for sm_90, some of which split the sum over pixels, and one without.
inline bool also_as_sum(const CudnnQuestion& q) {
  return q.graph == CudnnGraph::weights_f32 && sums_in_f32(q.g);
}
/// True where the graph is one matrix product over pixels, which cuBLASLt serves as well: a 1x1 convolution
/// with no more than a bias behind it, or a gradient of one. Its gradient of bf16 weights is a product
/// anyway.
inline bool is_product(const CudnnQuestion& q) {
  return q.g.pointwise() && q.act == Act::none && !q.residual &&
         (!gradient_of_weights(q.graph) || q.g.dtype == DType::f32);
}
/// All of a question in one line: the key of its plan in memory and in the file of choices.
inline std::string plan_key(const CudnnQuestion& q) {
  const ConvGeometry& g = q.g;
  std::string key = "conv";
  for (int64_t v : {int64_t(q.graph), int64_t(q.bias), int64_t(q.residual), int64_t(q.act),
                    int64_t(q.deterministic), int64_t(q.tf32), int64_t(g.dtype), g.n, g.h, g.w, g.c, g.k,
                    g.kernel, g.stride, g.pad_top, g.pad_left, g.pad_bottom, g.pad_right})
    key += ' ' + std::to_string(v);
  return key;
}

}  // namespace gm::cuda
