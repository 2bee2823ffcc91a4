#include <type_traits>

#include "kernels/common/ceil_div.h"
#include "kernels/common/dispatch.h"
#include "kernels/conv2d/conv2d_cpu.h"
#include "kernels/linear/gemm_cpu.h"

namespace gm::GM_CPU_NS {

namespace {

using onednn::ConvPass;

constexpr int64_t kRowBlock = 96;  // output pixels gathered at a time: whole register tiles, and the block of
                                   // patches stays in the second-level cache

template <class T>
const T* at(const void* base, int64_t offset) {
  return static_cast<const T*>(base) + offset;
}
const void* at(const void* base, int64_t offset, DType t) {
  return static_cast<const char*>(base) + offset * static_cast<int64_t>(dtype_bytes(t));
}
void* at(void* base, int64_t offset, DType t) {
  return static_cast<char*>(base) + offset * static_cast<int64_t>(dtype_bytes(t));
}

template <class T>
void widen(const T* from, float* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = to_float(from[i]);
}
template <class T>
void store(const float* from, T* to, int64_t n, bool accumulate) {
  if (accumulate)
    for (int64_t i = 0; i < n; ++i) to[i] = from_float<T>(to_float(to[i]) + from[i]);
  else
    for (int64_t i = 0; i < n; ++i) to[i] = from_float<T>(from[i]);
}

// Patches of output pixels [begin, begin+count) (counted over the batch): row p holds the taps (r, s, c) of
// pixel begin+p, 0 outside the image. Along s and c a patch row is contiguous in NHWC.
template <class T>
void gather(const ConvGeometry& g, const T* x, int64_t begin, int64_t count, float* patches) {
  const int64_t row = g.kernel * g.c;
  for (int64_t p = begin; p < begin + count; ++p, patches += g.taps()) {
    const int64_t ox = p % g.ow, oy = p / g.ow % g.oh, n = p / g.ow / g.oh;
    const int64_t ix = ox * g.stride - g.pad_left;
    const int64_t s0 = std::max<int64_t>(0, -ix) * g.c,
                  s1 = std::max(s0, std::min(g.kernel, g.w - ix) * g.c);  // taps inside the image
    for (int64_t r = 0; r < g.kernel; ++r) {
      const int64_t iy = oy * g.stride - g.pad_top + r;
      float* to = patches + r * row;
      if (iy < 0 || iy >= g.h || s0 >= row) {
        std::fill(to, to + row, 0.f);
        continue;
      }
      const T* from = x + ((n * g.h + iy) * g.w + ix) * g.c;
      for (int64_t i = 0; i < s0; ++i) to[i] = 0;
      for (int64_t i = s0; i < s1; ++i) to[i] = to_float(from[i]);
      for (int64_t i = s1; i < row; ++i) to[i] = 0;
    }
  }
}

// The transpose of gather: adds patches of one image's pixels to that image's gradient.
void scatter_add(const ConvGeometry& g, const float* patches, int64_t begin, int64_t count, float* dx_image) {
  const int64_t row = g.kernel * g.c;
  for (int64_t p = begin; p < begin + count; ++p, patches += g.taps()) {
    const int64_t ox = p % g.ow, oy = p / g.ow;
    const int64_t ix = ox * g.stride - g.pad_left;
    const int64_t s0 = std::max<int64_t>(0, -ix) * g.c, s1 = std::min(g.kernel, g.w - ix) * g.c;
    for (int64_t r = 0; r < g.kernel; ++r) {
      const int64_t iy = oy * g.stride - g.pad_top + r;
      if (iy < 0 || iy >= g.h) continue;
      float* to = dx_image + (iy * g.w + ix) * g.c;
      for (int64_t i = s0; i < s1; ++i) to[i] += patches[r * row + i];
    }
  }
}

}  // namespace

// ---- weights
void ConvChunks::pack(ConvPass pass, const void* w, void* packed) const {
  if (chunking_.path[int(pass)] == ConvPath::library) {
    for (int k = 0; k < chunking_.classes(); ++k) {
      const int64_t i = chunking_.representative(k);
      if (chunking_.layout_chunk(pass, i) == i)
        onednn::pack_weights(chunking_.library_pass(pass), chunking_.library_shape(pass, i), w,
                             static_cast<char*>(packed) + chunking_.packed_offset(pass, i),
                             chunking_.turned(pass));
    }
    return;
  }
  // Forward multiplies by W^T (taps x K), backward by W (K x taps); panels of columns are independent.
  const ConvGeometry& g = chunking_.g;
  const bool forward = pass == ConvPass::forward;
  const int64_t rows = forward ? g.taps() : g.k, columns = forward ? g.k : g.taps();
  float* to = static_cast<float*>(packed);
  float_switch(g.dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* from = static_cast<const T*>(w);
    const int64_t panels = ceil_div(columns, kPanelWidth);
    pool_.ranges(panels, std::max<int64_t>(1, 16384 / (rows * kPanelWidth)),
                 [&](int64_t p0, int64_t p1, int) {
                   const int64_t j = p0 * kPanelWidth, n = std::min(columns, p1 * kPanelWidth) - j;
                   if (forward)
                     pack_b(rows, n, from + j * rows, 1, rows, to + j * rows);
                   else
                     pack_b(rows, n, from + j, columns, 1, to + j * rows);
                 });
  });
}
void ConvChunks::pack_forward(const void* w, void* packed) const { pack(ConvPass::forward, w, packed); }
void ConvChunks::pack_backward(const void* w, void* packed) const {
  pack(ConvPass::backward_data, w, packed);
}

// ---- forward
template <class T>
void ConvChunks::own_forward(const ConvChunk& c, const T* x, const float* packed, T* y, int thread) const {
  const ConvGeometry& g = chunking_.g;
  constexpr bool is_bf16 = std::is_same_v<T, bf16>;
  if (!is_bf16 && chunking_.by_pixels) {
    gemm_packed(c.y_pixels, g.k, g.c, reinterpret_cast<const float*>(x + c.x_begin * g.c), g.c, 1, packed,
                reinterpret_cast<float*>(y), g.k, false);
    return;
  }
  float* rows =
      static_cast<float*>(pool_.scratch(thread, static_cast<size_t>(kRowBlock * (g.taps() + g.k)) * 4, 2));
  float* result = rows + kRowBlock * g.taps();
  for (int64_t p = 0; p < c.y_pixels; p += kRowBlock) {
    const int64_t count = std::min(kRowBlock, c.y_pixels - p);
    if (chunking_.by_pixels)
      widen(x + (c.x_begin + p) * g.c, rows, count * g.c);
    else
      gather(g, x, c.y_begin + p, count, rows);
    T* to = y + p * g.k;
    float* sums = is_bf16 ? result : reinterpret_cast<float*>(to);
    gemm_packed(count, g.k, g.taps(), rows, g.taps(), 1, packed, sums, g.k, false);
    if constexpr (is_bf16) store(sums, to, count * g.k, false);
  }
}

void ConvChunks::forward_to(int64_t i, const void* x, const void* packed, void* y_chunk, int thread) const {
  const ConvGeometry& g = chunking_.g;
  const ConvChunk c = chunking_.chunk(i);
  if (chunking_.path[int(ConvPass::forward)] == ConvPath::library) {
    const int64_t begin = chunking_.by_pixels ? c.x_begin : c.x_begin + chunking_.first_row(c) * g.w;
    onednn::conv_forward(chunking_.shape(i), chunking_.shape(chunking_.layout_chunk(ConvPass::forward, i)),
                         at(x, begin * g.c, g.dtype),
                         static_cast<const char*>(packed) + chunking_.packed_offset(ConvPass::forward, i),
                         y_chunk);
    return;
  }
  float_switch(g.dtype, [&](auto zero) {
    using T = decltype(zero);
    own_forward(c, static_cast<const T*>(x), static_cast<const float*>(packed), static_cast<T*>(y_chunk),
                thread);
  });
}
void ConvChunks::forward(int64_t i, const void* x, const void* packed, void* y, int thread) const {
  forward_to(i, x, packed, at(y, chunking_.chunk(i).y_begin * chunking_.g.k, chunking_.g.dtype), thread);
}

// ---- gradient of the input
template <class T>
void ConvChunks::own_backward_data(const ConvChunk& c, const T* dy, const float* packed, T* dx,
                                   bool accumulate, int thread) const {
  const ConvGeometry& g = chunking_.g;
  constexpr bool is_bf16 = std::is_same_v<T, bf16>;
  dx += c.x_begin * g.c;
  if (!is_bf16 && chunking_.by_pixels) {
    gemm_packed(c.y_pixels, g.c, g.k, reinterpret_cast<const float*>(dy), g.k, 1, packed,
                reinterpret_cast<float*>(dx), g.c, accumulate);
    return;
  }
  const int64_t image = g.h * g.w * g.c;
  float* wide = static_cast<float*>(pool_.scratch(
      thread, static_cast<size_t>(kRowBlock * (g.taps() + g.k) + (is_bf16 ? image : 0)) * 4, 2));
  float *patches = wide + kRowBlock * g.k, *sums = patches + kRowBlock * g.taps();
  // dy rows as f32, then dy * W
  auto block = [&](const T* from, int64_t count) {
    const float* rows = reinterpret_cast<const float*>(from);
    if constexpr (is_bf16) {
      widen(from, wide, count * g.k);
      rows = wide;
    }
    gemm_packed(count, g.taps(), g.k, rows, g.k, 1, packed, patches, g.taps(), false);
  };
  if (chunking_.by_pixels) {
    for (int64_t p = 0; p < c.y_pixels; p += kRowBlock) {
      const int64_t count = std::min(kRowBlock, c.y_pixels - p);
      block(dy + p * g.k, count);
      store(patches, dx + p * g.c, count * g.c, accumulate);
    }
    return;
  }
  const int64_t pixels = g.oh * g.ow;
  for (int64_t n = 0; n < c.images; ++n, dy += pixels * g.k, dx += image) {
    float* target = is_bf16 ? sums : reinterpret_cast<float*>(dx);
    if (is_bf16 || !accumulate) std::fill(target, target + image, 0.f);
    for (int64_t p = 0; p < pixels; p += kRowBlock) {
      const int64_t count = std::min(kRowBlock, pixels - p);
      block(dy + p * g.k, count);
      scatter_add(g, patches, p, count, target);
    }
    if constexpr (is_bf16) store(sums, dx, image, accumulate);
  }
}

void ConvChunks::backward_data(int64_t i, const void* dy_chunk, const void* packed, void* dx, bool accumulate,
                               int thread) const {
  const ConvGeometry& g = chunking_.g;
  const ConvChunk c = chunking_.chunk(i);
  float_switch(g.dtype, [&](auto zero) {
    using T = decltype(zero);
    if (chunking_.path[int(ConvPass::backward_data)] != ConvPath::library) {
      own_backward_data(c, static_cast<const T*>(dy_chunk), static_cast<const float*>(packed),
                        static_cast<T*>(dx), accumulate, thread);
      return;
    }
    T* target = static_cast<T*>(dx) + c.x_begin * g.c;
    const int64_t values = c.x_pixels * g.c;
    T* result = accumulate
                    ? static_cast<T*>(pool_.scratch(thread, static_cast<size_t>(values) * sizeof(T), 3))
                    : target;
    const auto pass = ConvPass::backward_data;
    const onednn::ConvShape shape = chunking_.library_shape(pass, i),
                            layout = chunking_.library_shape(pass, chunking_.layout_chunk(pass, i));
    const char* filters = static_cast<const char*>(packed) + chunking_.packed_offset(pass, i);
    if (chunking_.turned(pass))
      onednn::conv_forward(shape, layout, dy_chunk, filters, result);
    else
      onednn::conv_backward_data(shape, layout, dy_chunk, filters, result);
    if (accumulate)
      for (int64_t k = 0; k < values; ++k)
        target[k] = from_float<T>(to_float(target[k]) + to_float(result[k]));
  });
}

// ---- gradient of the weights
template <class T>
void ConvChunks::own_backward_weights(const ConvChunk& c, const T* x, const T* dy, float* dw,
                                      int thread) const {
  const ConvGeometry& g = chunking_.g;
  const int64_t taps = g.taps();
  const bool direct = chunking_.by_pixels;
  float* scratch = static_cast<float*>(pool_.scratch(
      thread, static_cast<size_t>(gemm_tn_scratch(g.k, taps) + (direct ? 0 : kGemmDepth * taps)) * 4, 2));
  if (direct) {
    gemm_tn(g.k, taps, c.y_pixels, dy, g.k, x + c.x_begin * g.c, g.c, dw, taps, scratch);
    return;
  }
  float* patches = scratch + gemm_tn_scratch(g.k, taps);
  for (int64_t p = 0; p < c.y_pixels; p += kGemmDepth) {
    const int64_t count = std::min(kGemmDepth, c.y_pixels - p);
    gather(g, x, c.y_begin + p, count, patches);
    gemm_tn(g.k, taps, count, dy + p * g.k, g.k, patches, taps, dw, taps, scratch);
  }
}

void ConvChunks::backward_weights(int64_t i, const void* x, const void* dy_chunk, void* partials,
                                  int64_t group, bool first, int thread) const {
  const ConvGeometry& g = chunking_.g;
  const ConvChunk c = chunking_.chunk(i);
  const size_t bytes = chunking_.partial_bytes();
  float* partial =
      reinterpret_cast<float*>(static_cast<char*>(partials) + static_cast<size_t>(group) * bytes);
  const int64_t values = static_cast<int64_t>(bytes / 4);
  if (chunking_.path[int(ConvPass::backward_weights)] == ConvPath::library) {
    const void* x_chunk = at(x, c.x_begin * g.c, g.dtype);
    float* result = first ? partial : static_cast<float*>(pool_.scratch(thread, bytes, 3));
    onednn::conv_backward_weights(chunking_.shape(i), chunking_.shape(0), x_chunk, dy_chunk, result);
    if (!first)
      for (int64_t k = 0; k < values; ++k) partial[k] += result[k];
    return;
  }
  if (first) std::fill(partial, partial + values, 0.f);
  float_switch(g.dtype, [&](auto zero) {
    using T = decltype(zero);
    own_backward_weights(c, static_cast<const T*>(x), static_cast<const T*>(dy_chunk), partial, thread);
  });
}

void ConvChunks::finish_weights(void* partials, float* dw, bool accumulate) const {
  const int64_t stride = static_cast<int64_t>(chunking_.partial_bytes() / 4), weights = chunking_.g.weights();
  float* sums = static_cast<float*>(partials);
  const bool library = chunking_.path[int(ConvPass::backward_weights)] == ConvPath::library;
  pool_.ranges(library ? stride : weights, 8192, [&](int64_t begin, int64_t end, int) {
    for (int64_t p = 1; p < chunking_.groups; ++p)
      for (int64_t k = begin; k < end; ++k) sums[k] += sums[p * stride + k];
    if (!library) store(sums + begin, dw + begin, end - begin, accumulate);
  });
  if (!library) return;
  float* plain = accumulate ? sums + chunking_.groups * stride : dw;
  onednn::unpack_gradient(chunking_.shape(0), sums, plain);
  if (accumulate)
    for (int64_t k = 0; k < weights; ++k) dw[k] += plain[k];
}

}  // namespace gm::GM_CPU_NS
