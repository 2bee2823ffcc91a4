// The phases of one tile of an MBConv block, in shared memory, except for the products.
//
// Every phase is a loop of the whole block of threads over its own items, with a barrier between phases:
//   load       16-byte vectors where rows allow, neighbouring threads neighbouring vectors
//   expand     products, then bias and activation, into the tile of e with its border of zeros
//   depthwise  a thread keeps its 2 channels and takes strips of 4 columns of one row
//   project    products whose sums stay in the same threads' registers from chunk to chunk
#pragma once
#include "kernels/common/act_any.cuh"
#include "kernels/common/ceil_div.h"
#include "kernels/common/pixel_warps.cuh"
#include "kernels/mbconv/mbconv_gpu.h"

namespace gm::GM_BACKEND_NS {

/// What kernels need of MbconvShape, in 32 bits.
struct MbProblem {
  int images, height, width, in_channels, expanded, out_channels, squeeze, out_height, out_width;
  int kernel, stride, pad_top, pad_left, in_rows, border_width, per_group;
  bool expand, residual;
  Act act;
  MbconvPlan p;

  MbProblem(const MbconvShape& s, const MbconvPlan& plan)
      : images(int(s.images())),
        height(int(s.d.height)),
        width(int(s.d.width)),
        in_channels(int(s.in_channels)),
        expanded(int(s.d.channels)),
        out_channels(int(s.out_channels)),
        squeeze(int(s.squeeze)),
        out_height(int(s.d.out_height)),
        out_width(int(s.d.out_width)),
        kernel(s.d.kernel),
        stride(s.d.stride),
        pad_top(s.d.pad_top),
        pad_left(s.d.pad_left),
        in_rows(plan.in_rows(s.d)),
        border_width(mb_border_width(s.d)),
        per_group(plan.chunks_per_group()),
        expand(s.expand),
        residual(s.residual),
        act(s.act),
        p(plan) {}
};
template <class T>
struct MbTensors {
  const T *x, *w_expand;
  const float* b_expand;
  const T* w_depthwise;
  const float* b_depthwise;
  const T* w_project;
  const float *b_project, *w_squeeze, *b_squeeze, *w_excite, *b_excite;
  T* y;
  float* partial;  // several groups: their sums
  T* d;            // squeeze-and-excitation
  float* pooled;
};

/// Where this block's tile lies. Input rows [low, high) are inside the image; `above` more lie over it.
struct MbTile {
  int image, images, row, rows, low, high, above, in_pixels, out_pixels;  // pixels: of one image
  __device__ explicit MbTile(const MbProblem& g) {
    const int tile = static_cast<int>(blockIdx.x);
    image = tile / g.p.row_tiles * g.p.images;
    images = min(g.p.images, g.images - image);
    row = tile % g.p.row_tiles * g.p.rows;
    rows = min(g.p.rows, g.out_height - row);
    const int first = row * g.stride - g.pad_top;
    low = max(first, 0);
    high = min(first + (rows - 1) * g.stride + g.kernel, g.height);
    above = low - first;
    in_pixels = (high - low) * g.width;
    out_pixels = rows * g.out_width;
  }
  /// First output element of the tile; its pixels follow each other in memory.
  __device__ int64_t output(const MbProblem& g, int channels) const {
    return (int64_t{image} * g.out_height + row) * g.out_width * channels;
  }
  /// Place of an input pixel in the bordered tile of the expanded tensor.
  __device__ __forceinline__ int bordered(const MbProblem& g, int pixel) const {
    const int i = pixel / in_pixels, q = pixel - i * in_pixels, r = q / g.width;
    return (i * g.in_rows + r + above) * g.border_width + q - r * g.width + g.pad_left;
  }
};

/// The parts of shared memory.
template <class T>
struct MbParts {
  T *x, *e, *d, *w_expand, *w_depthwise, *w_project;
  float *bias, *gate, *y;  // bias of the expansion, then of the depthwise convolution; y: over all the others
  __device__ MbParts(const MbconvPlan& p, unsigned char* shared)
      : x(reinterpret_cast<T*>(shared + p.x)),
        e(reinterpret_cast<T*>(shared + p.e)),
        d(reinterpret_cast<T*>(shared + p.d)),
        w_expand(reinterpret_cast<T*>(shared + p.w_expand)),
        w_depthwise(reinterpret_cast<T*>(shared + p.w_depthwise)),
        w_project(reinterpret_cast<T*>(shared + p.w_project)),
        bias(reinterpret_cast<float*>(shared + p.bias)),
        gate(reinterpret_cast<float*>(shared + p.gate)),
        y(reinterpret_cast<float*>(shared)) {}
};

/// rows x columns of a matrix to to + place(row), with zeros up to all_rows x all_columns. Vectors need row
/// starts and `columns` that are multiples of them.
template <class T, class Place>
__device__ __forceinline__ void mb_load(const T* from, int64_t stride, int rows, int columns, int all_rows,
                                        int all_columns, T* to, Place place) {
  constexpr int V = kVecLanes<T>;
  if ((columns | all_columns | static_cast<int>(stride)) % V == 0) {
    const int across = all_columns / V;
    for (int i = static_cast<int>(threadIdx.x); i < all_rows * across; i += kMbThreads) {
      const int r = i / across, c = (i - r * across) * V;
      Vec<T, V> v{};
      if (r < rows && c < columns) v = Vec<T, V>::load(from + r * stride + c);
      v.store(to + place(r) + c);
    }
    return;
  }
  for (int i = static_cast<int>(threadIdx.x); i < all_rows * all_columns; i += kMbThreads) {
    const int r = i / all_columns, c = i - r * all_columns;
    to[place(r) + c] = r < rows && c < columns ? from[r * stride + c] : T{};
  }
}

/// The input rows of the tile, pixel after pixel.
template <class T>
__device__ __forceinline__ void mb_load_input(const MbProblem& g, const MbTile& t, const T* x, T* to) {
  const int pitch = mb_pitch<T>(g.in_channels), columns = mb_deep<T>(g.in_channels);
  for (int i = 0; i < t.images; ++i)
    mb_load(x + ((int64_t{t.image} + i) * g.height + t.low) * g.width * g.in_channels, g.in_channels,
            t.in_pixels, g.in_channels, t.in_pixels, columns, to + i * t.in_pixels * pitch,
            [=](int p) { return p * pitch; });
}

/// d of one chunk. K = 0: any kernel and stride.
template <class T, int K, int S>
__device__ __forceinline__ void mb_depthwise(const MbProblem& g, const MbTile& t, int count,
                                             const MbParts<T>& at) {
  const int chunk = g.p.chunk, pitch = mb_pitch<T>(chunk), kernel = K ? K : g.kernel,
            stride = K ? S : g.stride;
  const int pairs = mb_deep<T>(count) / 2, lanes = kMbThreads / pairs;
  const int c = static_cast<int>(threadIdx.x) % pairs * 2, lane = static_cast<int>(threadIdx.x) / pairs;
  const int strips = ceil_div(g.out_width, kMbColumns), items = t.images * t.rows * strips;
  const T* w = at.w_depthwise + c;
  const float* bias = at.bias + chunk + c;
  if (lane >= lanes) return;
  for (int item = lane; item < items; item += lanes) {
    const int row = item / strips, ow = (item - row * strips) * kMbColumns, image = row / t.rows;
    const T* from =
        at.e + c +
        ((image * g.in_rows + (row - image * t.rows) * stride) * g.border_width + ow * stride) * chunk;
    float sum[kMbColumns][2];
#pragma unroll
    for (int i = 0; i < kMbColumns; ++i) sum[i][0] = bias[0], sum[i][1] = bias[1];
    if constexpr (K > 0) {
#pragma unroll 1  // all rows at once need registers that the sums of the projection occupy
      for (int r = 0; r < K; ++r) {
        float tap[K][2];
#pragma unroll
        for (int s = 0; s < K; ++s) Vec<T, 2>::load(w + (r * K + s) * chunk).to_float(tap[s]);
#pragma unroll
        for (int j = 0; j < (kMbColumns - 1) * S + K; ++j) {
          float v[2];
          Vec<T, 2>::load(from + (r * g.border_width + j) * chunk).to_float(v);
#pragma unroll
          for (int s = 0; s < K; ++s)
            if ((j - s) % S == 0 && j - s >= 0 && (j - s) / S < kMbColumns) {
              sum[(j - s) / S][0] += v[0] * tap[s][0];
              sum[(j - s) / S][1] += v[1] * tap[s][1];
            }
        }
      }
    } else {
      for (int tap = 0; tap < kernel * kernel; ++tap) {
        const T* v = from + (tap / kernel * g.border_width + tap % kernel) * chunk;
#pragma unroll
        for (int i = 0; i < kMbColumns; ++i) {
          sum[i][0] += to_float(v[i * stride * chunk]) * to_float(w[tap * chunk]);
          sum[i][1] += to_float(v[i * stride * chunk + 1]) * to_float(w[tap * chunk + 1]);
        }
      }
    }
    T* to = at.d + (row * g.out_width + ow) * pitch + c;
#pragma unroll
    for (int i = 0; i < kMbColumns; ++i)
      if (ow + i < g.out_width) {
        const float f[2] = {act_value_any<T>(g.act, sum[i][0]), act_value_any<T>(g.act, sum[i][1])};
        Vec<T, 2>::from_float(f).store(to + i * pitch);
      }
  }
}
template <class T>
__device__ __forceinline__ void mb_depthwise_any(const MbProblem& g, const MbTile& t, int count,
                                                 const MbParts<T>& at) {
  if (g.kernel == 3 && g.stride == 1) return mb_depthwise<T, 3, 1>(g, t, count, at);
  if (g.kernel == 3 && g.stride == 2) return mb_depthwise<T, 3, 2>(g, t, count, at);
  if (g.kernel == 5 && g.stride == 1) return mb_depthwise<T, 5, 1>(g, t, count, at);
  if (g.kernel == 5 && g.stride == 2) return mb_depthwise<T, 5, 2>(g, t, count, at);
  mb_depthwise<T, 0, 1>(g, t, count, at);
}

}  // namespace gm::GM_BACKEND_NS
