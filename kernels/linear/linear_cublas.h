// cuBLASLt path of linear and of 1x1 convolution gradients. Each call returns false when it did nothing (no
// library, no algorithm for the problem, or one that failed, which is remembered); the caller then runs our
// own kernels.
#pragma once
#include "kernels/common/op.h"
#include "kernels/linear/linear.h"

namespace gm::cuda {

bool cublas_linear_forward(const OpCall& call, const LinearShape& s);
bool cublas_linear_backward_data(const OpCall& call, const LinearShape& s);
bool cublas_linear_backward_weights(const OpCall& call, const LinearShape& s);

/// dw (out, in) f32 = or += dy^T x over n rows; x and dy of dtype s.dtype. A 1x1 convolution is this with n =
/// pixels.
bool cublas_weight_gradient(const Context& ctx, const LinearShape& s, const void* x, const void* dy,
                            float* dw, bool accumulate);

}  // namespace gm::cuda
