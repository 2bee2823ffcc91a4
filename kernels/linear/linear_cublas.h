// cuBLASLt path of linear and of 1x1 convolutions. Each call returns false when it did nothing (no
// library, no algorithm for the problem, or one that failed, which is remembered); the caller then runs our
// own kernels.
#pragma once
#include "kernels/common/op.h"
#include "kernels/linear/linear.h"

namespace gm::cuda {

bool cublas_linear_forward(const OpCall& call, const LinearShape& s);
bool cublas_linear_backward_data(const OpCall& call, const LinearShape& s);
bool cublas_linear_backward_weights(const OpCall& call, const LinearShape& s);

// The same products by their operands; a 1x1 convolution is these with n = pixels. x, w, y and their
// gradients are of dtype s.dtype, dw and bias f32.

/// y (n, out) = x w^T [+ bias]
bool cublas_product(const Context& ctx, const LinearShape& s, const void* x, const void* w, const float* bias,
                    void* y);
/// dx (n, in) = or += dy w
bool cublas_data_gradient(const Context& ctx, const LinearShape& s, const void* w, const void* dy, void* dx,
                          bool accumulate);
/// dw (out, in) = or += dy^T x over n rows
bool cublas_weight_gradient(const Context& ctx, const LinearShape& s, const void* x, const void* dy,
                            float* dw, bool accumulate);

}  // namespace gm::cuda
