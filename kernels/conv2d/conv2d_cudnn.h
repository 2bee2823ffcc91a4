// cuDNN path of conv2d. Each call returns false when it did nothing: no library, no plan for the problem, or
// a plan that failed (remembered, so it is tried once). The caller then runs our own kernels.
#pragma once
#include "kernels/common/op.h"
#include "kernels/conv2d/conv2d.h"

namespace gm::cuda {

bool cudnn_conv_forward(const OpCall& call, const ConvGeometry& g);
bool cudnn_conv_backward_data(const OpCall& call, const ConvGeometry& g);
bool cudnn_conv_backward_weights(const OpCall& call, const ConvGeometry& g);

}  // namespace gm::cuda
