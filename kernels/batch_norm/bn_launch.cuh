// Batch norm on the GPU as every op with one inside launches it. The kernels are compiled once, in
// bn_forward.cu and bn_backward.cu, for T = float and bf16 and all activations.
#pragma once
#include "kernels/batch_norm/bn.cuh"

namespace gm::GM_BACKEND_NS {

/// What follows the activation: y = act(z) * factor of the image * gate of image and channel + residual.
template <class T>
struct BnTail {
  const T* residual = nullptr;    // null: none
  const float* factor = nullptr;  // per image; null: 1
  const float* gate = nullptr;    // [image][channel]; null: 1
  int image_pixels = 1;
};

/// y = act(BN(x)), with a tail or, when pooled is not null, pooled means, and then y may be null;
/// coefficients known.
template <class T>
void bn_launch_apply(Act act, const T* x, T* y, float* pooled, const Shape& shape, BnVectors k,
                     const Context& ctx, const BnTail<T>& tail = {});

/// Inference and frozen BN: coefficients from the running statistics.
void bn_launch_running(const BnFinish& finish, int64_t channels, const BnDraw& draw, const Context& ctx);

/// Forward of batch_norm and batch_norm_act. Workspace: vectors [6][C], then partials.
template <class T>
void bn_op_forward(const OpCall& c, Act act, bool pool);

/// Gradient of act's output: dy per pixel (null = 0) times the image's factor of stochastic depth (null = 1)
/// and gate[image][channel] of squeeze-and-excitation (null = 1), plus dpool[image] / image_pixels (null =
/// 0).
template <class T>
struct BnGradient {
  const T* dy;
  const float* dpool;
  int image_pixels;
  const float* factor = nullptr;
  const float* gate = nullptr;
  float per_pixel = 1.f / static_cast<float>(image_pixels);

  /// Nothing but dy.
  bool plain() const { return dy && !dpool && !factor && !gate; }
};
/// dz, which holds dy times its factor, times the gates plus the pooled gradient of the image.
template <class T, int N>
__device__ __forceinline__ void bn_gate_and_pool(const BnGradient<T>& g, unsigned image, int channels, int c,
                                                 float (&dz)[N]) {
  if (g.gate) {
    float s[N];
    load_lanes<float, N>(g.gate + int64_t{image} * channels + c, s);
#pragma unroll
    for (int i = 0; i < N; ++i) dz[i] *= s[i];
  }
  if (g.dpool) {
    float d[N];
    load_lanes<float, N>(g.dpool + int64_t{image} * channels + c, d);
#pragma unroll
    for (int i = 0; i < N; ++i) dz[i] += d[i] * g.per_pixel;
  }
}

/// The two sums over pixels of every channel, finished in the last block. x null: only sum dz (a bias
/// gradient).
template <class T>
void bn_launch_sums(Act act, const T* x, const BnGradient<T>& g, int64_t pixels, int64_t channels,
                    float* partial, const BnFinishBackward& finish, const Context& ctx);

/// Backward of batch_norm and batch_norm_act. Workspace: as forward.
template <class T>
void bn_op_backward(const OpCall& c, Act act, bool pool);

}  // namespace gm::GM_BACKEND_NS
