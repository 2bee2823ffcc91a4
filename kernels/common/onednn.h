// oneDNN behind one file: dense convolution on NHWC tensors for one thread. The v2 and v3 APIs differ only
// in onednn.cpp.
//
// Every call works on the calling thread alone: the first call on a thread tells OpenMP so, and primitives
// are created and kept per thread. The library keeps weights in a layout of its own; callers pack them once
// per op call into their own memory ("packed") and hand that to every chunk. Weight gradients come out in
// such a layout too, so that partial sums of chunks are added there and unpacked once.
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/common/view.h"

namespace gm::onednn {

/// Whether this build carries oneDNN and GM_ONEDNN=0 is not set. When false the other calls fail.
bool available();
/// Whether bf16 products are done by the processor (AVX-512 BF16, AMX) rather than emulated.
bool native_bf16();

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

enum class ConvPass : uint8_t { forward, backward_data, backward_weights };

/// Bytes of the library's weight layout for a problem (for backward_weights: of the f32 gradient); 0 when
/// the library has no optimised kernel for it.
size_t packed_bytes(ConvPass pass, const ConvShape& shape);
/// Whether `shape` runs on weights (or writes a gradient) in the layout of `layout` without conversion, which
/// is slow between two layouts of the library.
bool shares_layout(ConvPass pass, const ConvShape& shape, const ConvShape& layout);
/// w in OHWI to the layout of `shape`; pass is forward or backward_data. turned: w is a 1x1 filter bank
/// stored as (C, K), so that a forward convolution with it is the gradient of the one it belongs to.
void pack_weights(ConvPass pass, const ConvShape& shape, const void* w, void* packed, bool turned = false);
/// A gradient in the layout of `shape` to f32 OHWI.
void unpack_gradient(const ConvShape& shape, const float* packed, float* dw);

/// y = conv(x, w). `layout` is the shape the weights were packed for; `shape` may differ from it in batch,
/// rows and paddings (the last chunk, a band of rows).
void conv_forward(const ConvShape& shape, const ConvShape& layout, const void* x, const void* packed,
                  void* y);
/// dx = conv^T(dy, w)
void conv_backward_data(const ConvShape& shape, const ConvShape& layout, const void* dy, const void* packed,
                        void* dx);
/// packed_dw = x (*) dy in the f32 layout of `layout`, overwritten
void conv_backward_weights(const ConvShape& shape, const ConvShape& layout, const void* x, const void* dy,
                           float* packed_dw);

}  // namespace gm::onednn
