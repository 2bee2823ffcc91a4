// oneDNN behind one file: dense convolution on NHWC tensors for one thread. The v2 and v3 APIs differ only
// there.
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/common/view.h"

namespace gm::onednn {

/// Whether this build carries oneDNN. When false every other call fails.
bool available();

/// One dense convolution problem. Activations NHWC, weights OHWI, dtype of both f32 or bf16.
struct ConvShape {
  int64_t n, h, w, c;  // input
  int64_t k, r, s;     // filters, kernel height and width
  int64_t oh, ow;      // output size
  int64_t stride;
  int64_t pad_top, pad_left;  // bottom/right padding follows from the sizes
  DType dtype;
  bool operator==(const ConvShape&) const = default;
};

/// y = conv(x, w). Runs on the calling thread alone. Weights are in OHWI; they are reordered to the library's
/// layout into thread-local storage when the library wants another one.
void conv_forward(const ConvShape& shape, const void* x, const void* w, void* y);
/// dx = conv^T(dy, w)
void conv_backward_data(const ConvShape& shape, const void* dy, const void* w, void* dx);
/// dw = x (*) dy, f32 OHWI whatever the activation dtype
void conv_backward_weights(const ConvShape& shape, const void* x, const void* dy, float* dw);

/// Row-major C[m][n] = A[m][k] * B (+ beta * C), f32, on the calling thread alone. transpose: the operand is
/// stored as B[n][k] (or A[k][m]).
void gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda,
          const float* b, int64_t ldb, float beta, float* c, int64_t ldc);

}  // namespace gm::onednn
