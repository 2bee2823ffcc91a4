// cuBLASLt path of linear. Each call returns false when it did nothing (no library, no algorithm for the
// problem, or one that failed, which is remembered); the caller then runs our own kernels.
#pragma once
#include "kernels/common/op.h"
#include "kernels/linear/linear.h"

namespace gm::cuda {

bool cublas_linear_forward(const OpCall& call, const LinearShape& s);
bool cublas_linear_backward_data(const OpCall& call, const LinearShape& s);
bool cublas_linear_backward_weights(const OpCall& call, const LinearShape& s);

}  // namespace gm::cuda
