#include "kernels/conv2d/conv2d_verdict_cudnn.h"

#include <cuda_runtime_api.h>

#include "kernels/common/cuda_results.h"
#include "kernels/conv2d/conv2d.h"
#include "kernels/conv2d/conv2d_own.h"

namespace gm::cuda::cudnn_graph {

namespace {

void check(cudaError_t status) {
  if (status != cudaSuccess) fail(std::string("check of a library's plan: ") + cudaGetErrorString(status));
}

}  // namespace

OwnResult::OwnResult(const Context& ctx, const CudnnQuestion& q, const ConvOperands& operands)
    : ctx_(ctx), q_(q), operands_(operands), result_(static_cast<size_t>(4 * result_values(q))) {
  const CudaScratch workspace(conv_workspace(Backend::cuda, Pass::backward, q.g));
  if (!result_.data() || !workspace.data()) return;
  operands_.*result_of(q.graph) = result_.data();
  check(cudaMemsetAsync(result_.data(), 0, static_cast<size_t>(4 * result_values(q)),
                        static_cast<cudaStream_t>(ctx.stream)));
  own_convolution(ctx, q, operands_, workspace.data(), true);
  want_ = ends(own_result_type(q));
}

double OwnResult::off(const Answer& answer, void* zeros) {
  if (want_.empty()) return 0;
  if (gradient_of_weights(q_.graph)) operands_.residual = zeros;
  // NaN where a plan writes nothing; 0 where it adds to what is there.
  const int before = q_.graph == CudnnGraph::backward_data_add ? 0 : 0xFF;
  check(cudaMemsetAsync(result_.data(), before, static_cast<size_t>(4 * result_values(q_)),
                        static_cast<cudaStream_t>(ctx_.stream)));
  start(ctx_, q_, answer, operands_);
  return relative_difference(ends(result_type(q_)), want_);
}

std::vector<float> OwnResult::ends(DType type) const {
  return first_and_last({result_.data(), {{result_values(q_)}, type}}, ctx_.stream);
}

}  // namespace gm::cuda::cudnn_graph
