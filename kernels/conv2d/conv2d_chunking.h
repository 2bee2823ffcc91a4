// How the CPU cuts one convolution into chunks. Everything here is a function of the problem alone, never of
// the number of threads, so that sums of chunk results are the same bits on any machine load.
//
// A chunk is a run of output pixels: whole images, a band of rows of one image (forward only), or for 1x1
// convolutions any run of pixels. Its size keeps x, y and whatever a fused op does next in the second-level
// cache. For weight gradients consecutive chunks form groups; one thread walks a group in order and adds into
// the group's partial gradient; the partials are summed in group order at the end.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include "kernels/common/ceil_div.h"
#include "kernels/common/onednn.h"
#include "kernels/common/op.h"
#include "kernels/conv2d/conv2d.h"

namespace gm {

/// Who multiplies: our own product over pixels (1x1, f32), oneDNN, or our own product over gathered patches.
enum class ConvPath : uint8_t { pixels, library, patches };

struct ConvChunk {
  int64_t image = 0, images = 0;      // k x k: images [image, image+images)
  int64_t row = 0, rows = 0;          // k x k: output rows of each (all of them unless images == 1)
  int64_t y_begin = 0, y_pixels = 0;  // output pixels, counted over the batch
  int64_t x_begin = 0, x_pixels = 0;  // input pixels that belong to it: those of its images; 1x1: same as y
};

struct ConvChunking {
  ConvGeometry g;
  std::array<ConvPath, 3> path{};  // by onednn::ConvPass
  bool by_pixels = false;          // 1x1: chunks are runs of pixels
  int64_t step = 1;                // pixels, images or rows per chunk
  int64_t bands = 1;               // chunks per image (k x k, forward)
  int64_t chunks = 0;
  int64_t group = 1;  // chunks per group
  int64_t groups = 0;

  /// pass: forward may cut images into bands of rows; backward never does.
  /// allow_library: false forces our own kernels (tests).
  ConvChunking(const ConvGeometry& geometry, Pass pass, bool allow_library = true) : g(geometry) {
    const int64_t e = static_cast<int64_t>(dtype_bytes(g.dtype));
    by_pixels = g.pointwise();
    constexpr int64_t target = 384 << 10, least = 16;  // bytes of x and y in a chunk; chunks wanted
    const int64_t bytes = e * (g.in_pixels() * g.c + g.out_pixels() * g.k);
    if (by_pixels) {
      const int64_t pixels = g.out_pixels();
      const int64_t count = std::max(ceil_div(bytes, target), std::min(least, ceil_div(pixels, 48)));
      step = round_up(ceil_div(pixels, count), 24);  // whole register tiles
      chunks = ceil_div(pixels, step);
    } else {
      const int64_t count = std::min(g.n, std::max(ceil_div(bytes, target), least));
      step = ceil_div(g.n, count);
      chunks = ceil_div(g.n, step);
      // Large images and tiny batches: bands of rows, at least two rows of some work each.
      if (pass == Pass::forward && step == 1) {
        const int64_t wanted = std::max(ceil_div(bytes / g.n, target), ceil_div(least, g.n)),
                      most = std::min(g.oh / 2, static_cast<int64_t>(g.macs() / double(g.n) / 5e5));
        if (std::min(wanted, most) > 1) {
          step = ceil_div(g.oh, std::min(wanted, most));
          bands = ceil_div(g.oh, step);
          chunks = g.n * bands;
        }
      }
    }
    const int64_t partial = 4 * g.weights();
    const int64_t most = std::clamp<int64_t>((32 << 20) / std::max<int64_t>(1, partial), 8, 32);
    group = ceil_div(chunks, most);
    groups = ceil_div(chunks, group);
    for (int p = 0; p < 3; ++p) {
      const auto conv_pass = static_cast<onednn::ConvPass>(p);
      path[p] = by_pixels ? ConvPath::pixels : ConvPath::patches;
      const bool used = (conv_pass == onednn::ConvPass::forward) == (pass == Pass::forward);
      if (allow_library && used && onednn::available() && library_wanted(conv_pass) &&
          find_layouts(conv_pass))
        path[p] = ConvPath::library;
    }
  }

  ConvChunk chunk(int64_t i) const {
    ConvChunk c;
    if (by_pixels) {
      c.y_begin = i * step;
      c.y_pixels = std::min(step, g.out_pixels() - c.y_begin);
      c.x_begin = c.y_begin;
      c.x_pixels = c.y_pixels;
      return c;
    }
    if (bands > 1) {
      c.image = i / bands, c.images = 1;
      c.row = i % bands * step, c.rows = std::min(step, g.oh - c.row);
    } else {
      c.image = i * step, c.images = std::min(step, g.n - c.image);
      c.rows = g.oh;
    }
    c.y_begin = (c.image * g.oh + c.row) * g.ow;
    c.y_pixels = c.images * c.rows * g.ow;
    c.x_begin = c.image * g.h * g.w;
    c.x_pixels = c.images * g.h * g.w;
    return c;
  }

  // ---- what the library sees ----
  /// Chunks differ in size and padding only between at most three classes: the first, the inner and the last
  /// (of the batch, or of an image's bands). Each has a chunk that stands for it.
  int classes() const {
    return static_cast<int>(bands > 1 ? std::min<int64_t>(bands, 3) : chunks > 1 ? 2 : 1);
  }
  int class_of(int64_t i) const {
    const int64_t place = bands > 1 ? i % bands : i, last = bands > 1 ? bands - 1 : chunks - 1;
    return place == 0 ? 0 : place == last ? classes() - 1 : bands > 1 ? 1 : 0;
  }
  int64_t representative(int c) const {
    return c == 0 ? 0 : c < classes() - 1 ? 1 : bands > 1 ? bands - 1 : chunks - 1;
  }
  /// The gradient of a 1x1 convolution with respect to its input is a 1x1 convolution of dy with the filters
  /// turned; the library's forward kernels are the faster ones.
  bool turned(onednn::ConvPass pass) const { return by_pixels && pass == onednn::ConvPass::backward_data; }
  onednn::ConvPass library_pass(onednn::ConvPass pass) const {
    return turned(pass) ? onednn::ConvPass::forward : pass;
  }
  onednn::ConvShape library_shape(onednn::ConvPass pass, int64_t i) const {
    onednn::ConvShape s = shape(i);
    if (turned(pass)) std::swap(s.c, s.k);
    return s;
  }
  /// Chunk whose weight layout chunk i uses.
  int64_t layout_chunk(onednn::ConvPass pass, int64_t i) const { return layout[int(pass)][class_of(i)]; }
  /// Where packed weights in the layout of that chunk start.
  size_t packed_offset(onednn::ConvPass pass, int64_t i) const {
    size_t offset = 0;
    for (int c = 0; representative(c) != layout_chunk(pass, i); ++c) offset += layout_bytes(pass, c);
    return offset;
  }
  /// Bytes of the layout of a class; 0 when it shares an earlier one.
  size_t layout_bytes(onednn::ConvPass pass, int c) const {
    const int64_t i = representative(c);
    if (layout[int(pass)][c] != i) return 0;
    return aligned_bytes(onednn::packed_bytes(library_pass(pass), library_shape(pass, i)));
  }

  /// First input row a band reads, and the problem of chunk i.
  int64_t first_row(const ConvChunk& c) const { return std::max<int64_t>(0, c.row * g.stride - g.pad_top); }
  onednn::ConvShape shape(int64_t i) const {
    const ConvChunk c = chunk(i);
    onednn::ConvShape s{.n = c.images,
                        .h = g.h,
                        .w = g.w,
                        .c = g.c,
                        .k = g.k,
                        .r = g.kernel,
                        .s = g.kernel,
                        .oh = c.rows,
                        .ow = g.ow,
                        .stride = g.stride,
                        .pad_top = g.pad_top,
                        .pad_left = g.pad_left,
                        .dtype = g.dtype};
    if (by_pixels) {
      s.n = 1, s.h = s.oh = c.y_pixels, s.w = s.ow = 1;
    } else if (c.rows < g.oh) {
      const int64_t above = c.row * g.stride - g.pad_top;
      const int64_t end = std::min(g.h, above + (c.rows - 1) * g.stride + g.kernel);
      s.pad_top = std::max<int64_t>(0, -above);
      s.h = end - first_row(c);
    }
    return s;
  }

  // ---- sizes of what callers keep, aligned
  /// Packed weights of a pass (forward or backward_data).
  size_t packed_bytes(onednn::ConvPass pass) const {
    if (path[int(pass)] == ConvPath::library) {
      size_t bytes = 0;
      for (int c = 0; c < classes(); ++c) bytes += layout_bytes(pass, c);
      return bytes;
    }
    // Our panels are padded to at most 16 columns.
    const int64_t rows = pass == onednn::ConvPass::forward ? g.taps() : g.k,
                  columns = pass == onednn::ConvPass::forward ? g.k : g.taps();
    return aligned_bytes(static_cast<size_t>(4 * rows * round_up(columns, 16)));
  }
  /// One partial weight gradient.
  size_t partial_bytes() const {
    const auto pass = onednn::ConvPass::backward_weights;
    if (path[int(pass)] == ConvPath::library) return aligned_bytes(onednn::packed_bytes(pass, shape(0)));
    return aligned_bytes(static_cast<size_t>(4 * g.weights()));
  }
  /// All partials and, for the library's layout, one unpacked gradient.
  size_t partials_bytes() const {
    return partial_bytes() * static_cast<size_t>(groups) +
           aligned_bytes(static_cast<size_t>(4 * g.weights()));
  }

 private:
  // Our own product over pixels wins for f32 1x1 convolutions and all their weight gradients; bf16 goes to
  // the library only where the processor multiplies bf16.
  bool library_wanted(onednn::ConvPass pass) const {
    if (by_pixels && (g.dtype == DType::f32 || pass == onednn::ConvPass::backward_weights)) return false;
    return g.dtype == DType::f32 || onednn::native_bf16();
  }
  bool find_layouts(onednn::ConvPass pass) {
    for (int c = 0; c < classes(); ++c) {
      const int64_t i = representative(c);
      const onednn::ConvShape mine = library_shape(pass, i), first = library_shape(pass, 0);
      if (!onednn::packed_bytes(library_pass(pass), mine)) return false;
      const bool shared = c == 0 || onednn::shares_layout(library_pass(pass), mine, first);
      if (!shared && pass == onednn::ConvPass::backward_weights) return false;  // partials have one layout
      layout[int(pass)][c] = shared ? 0 : i;
    }
    return true;
  }
  std::array<std::array<int64_t, 3>, 3> layout{};  // [pass][class]: chunk whose layout the class uses
};

}  // namespace gm
