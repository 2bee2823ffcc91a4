// Depthwise convolution on the GPU as every op with one inside launches it. The kernels are compiled once, in
// depthwise_forward.cu and depthwise_backward.cu, for T = float and bf16.
#pragma once
#include "kernels/batch_norm/bn_launch.cuh"
#include "kernels/depthwise_conv2d/depthwise_gpu.h"

namespace gm::GM_BACKEND_NS {

/// y = act(conv + bias); bias may be null.
template <class T>
void dw_launch_forward(const T* x, const T* w, const float* bias, T* y, const DepthwiseShape& d, Act act,
                       const Context& ctx);

/// The same, and sums over parts of each image (partial: [N][depthwise_gpu_parts][C]); false when the shape
/// has no such kernel and they are not written.
template <class T>
bool dw_launch_pooled(const T* x, const T* w, const float* bias, T* y, const DepthwiseShape& d, Act act,
                      float* partial, const Context& ctx);

/// How every op begins that normalises a depthwise convolution (in: x, w, gamma, beta; saved[1]: mean): yc,
/// and the coefficients of its batch norm, of this batch or the running ones. Workspace: vectors, then BN
/// partials.
template <class T>
BnVectors dw_launch_normalised(const OpCall& c, const DepthwiseShape& d, T* yc);

/// Where dyc, the gradient of the convolution's output, comes from: it is dy (yc null), or the backward of
/// batch norm and activation of yc,
///   dyc = scale * dz - c - q * (yc - mean),  dz = (dy * gate + dpool / image_pixels) * act'(z).
template <class T>
struct DwIncoming {
  BnGradient<T> g;  // without factors
  const T* yc = nullptr;
  Act act = Act::none;
  BnFinishBackward norm{.v = BnVectors(nullptr, 0)};
};

/// din[0] and din[1] of a depthwise convolution. Norm: in.yc is given.
template <class T, bool Norm>
void dw_launch_backward(const OpCall& c, const DepthwiseShape& d, const DwIncoming<T>& in, float* partial);

}  // namespace gm::GM_BACKEND_NS
