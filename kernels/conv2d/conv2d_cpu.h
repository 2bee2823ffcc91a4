// Chunk-level convolution on the CPU: the building block of conv2d and of fused ops that work on a chunk of
// y (or dy) while it is still in cache.
//
//   ConvChunks conv(geometry, Pass::forward, *ctx.pool);      // cheap; decides chunks and code path
//   conv.pack_forward(w, packed);                             // conv.chunking().packed_bytes(...) bytes
//   pool.run(conv.chunking().chunks, [&](int64_t i, int thread) {
//     const ConvChunk k = conv.chunking().chunk(i);               // which pixels of y (and of x) it covers
//     conv.forward(i, x, packed, y, thread);                  // x, y: the whole tensors
//     ... statistics of y[k.y_begin .. k.y_begin + k.y_pixels) ...
//   });
//
//   ConvChunks conv(geometry, Pass::backward, *ctx.pool);
//   conv.pack_backward(w, packed);
//   pool.run(conv.chunking().groups, [&](int64_t group, int thread) {
//     auto [first, last] = conv.group(group);
//     for (int64_t i = first; i < last; ++i) {                // in order, on one thread
//       ... compute dy of chunk i into thread-local memory ...
//       conv.backward_data(i, dy_chunk, packed, dx, accumulate, thread);
//       conv.backward_weights(i, x, dy_chunk, partials, group, i == first, thread);
//     }
//   });
//   conv.finish_weights(partials, dw, accumulate);            // sums the groups in order, f32 OHWI
//
// Chunk pointers: `x`, `y`, `dx` are whole tensors; `dy_chunk` points at the chunk's own y_pixels * K values.
// In a backward plan a chunk always covers whole images (k x k) or a run of pixels (1x1), so chunks of dx do
// not overlap. Chunks depend on the problem only: results are the same bits for every number of threads.
// Per-thread scratch of the pool: slots 2 and 3 are used here; callers have 0 and 1.
#pragma once
#include <utility>

#include "kernels/common/parallel.h"
#include "kernels/conv2d/conv2d_chunking.h"

namespace gm::GM_CPU_NS {

class ConvChunks {
 public:
  ConvChunks(const ConvGeometry& g, Pass pass, ThreadPool& pool, bool allow_library = true)
      : chunking_(g, pass, allow_library), pool_(pool) {}
  const ConvChunking& chunking() const { return chunking_; }

  /// Weights (K,R,R,C) in the dtype of the activations, into chunking().packed_bytes(...) bytes.
  /// Parallel inside: call outside of pool tasks.
  void pack_forward(const void* w, void* packed) const;
  void pack_backward(const void* w, void* packed) const;

  /// y pixels of chunk i. The chunk is complete (and in this core's cache) on return.
  void forward(int64_t i, const void* x, const void* packed, void* y, int thread) const;
  /// Same, but the chunk's pixels go to their own memory: y_chunk[0] is pixel chunk(i).y_begin.
  void forward_to(int64_t i, const void* x, const void* packed, void* y_chunk, int thread) const;

  /// dx pixels of chunk i from dy pixels of chunk i; accumulate adds to dx.
  void backward_data(int64_t i, const void* dy_chunk, const void* packed, void* dx, bool accumulate,
                     int thread) const;

  /// Chunks [first, second) of a group.
  std::pair<int64_t, int64_t> group(int64_t index) const {
    return {index * chunking_.group, std::min(chunking_.chunks, (index + 1) * chunking_.group)};
  }
  /// Adds chunk i to partial gradient `group` of `partials` (chunking().partials_bytes() bytes); `first`
  /// starts it.
  void backward_weights(int64_t i, const void* x, const void* dy_chunk, void* partials, int64_t group,
                        bool first, int thread) const;
  /// dw (f32, OHWI) = or += the sum of all partials. Parallel inside: call outside of pool tasks.
  void finish_weights(void* partials, float* dw, bool accumulate) const;

 private:
  void pack(onednn::ConvPass pass, const void* w, void* packed) const;
  template <class T>
  void own_forward(const ConvChunk& c, const T* x, const float* packed, T* y, int thread) const;
  template <class T>
  void own_backward_data(const ConvChunk& c, const T* dy, const float* packed, T* dx, bool accumulate,
                         int thread) const;
  template <class T>
  void own_backward_weights(const ConvChunk& c, const T* x, const T* dy, float* dw, int thread) const;

  ConvChunking chunking_;
  ThreadPool& pool_;
};

/// Pixels [begin, begin + pixels) of y: act(y + bias) + residual in place; bias and residual may be null.
void conv_epilogue(const View& y, int64_t begin, int64_t pixels, const float* bias, Act act,
                   const View& residual);

}  // namespace gm::GM_CPU_NS
