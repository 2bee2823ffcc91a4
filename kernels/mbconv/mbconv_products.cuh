// The two products of an MBConv tile: expansion and projection. Both multiply rows of shared memory with rows
// of shared memory, C = A B^T, along a depth that is padded with zeros.
//
// f32: an item is 4 x 4 sums of a thread, both operands read by 16 bytes. Its four rows are not neighbours:
// thread i of a warp reads row i, thread i + 1 the next one, and neighbouring rows lie in other banks
// (mb_pitch). bf16: an item is 16 pixels x 24 channels of a warp, in three products of its matrix unit. A
// lane's places along the depth are four neighbours (see mma_bf16), read by 8 bytes.
#pragma once
#include "kernels/common/ceil_div.h"
#include "kernels/common/mma.cuh"
#include "kernels/mbconv/mbconv_tile.cuh"

namespace gm::GM_BACKEND_NS {

template <class T>
struct MbProduct;

template <>
struct MbProduct<float> {
  using Sums = float[4][4];
  static constexpr int kNeighbours = 1;  // sums of neighbouring columns
  // Rows r0, r0 + down, ... of A (pixels) and c0, c0 + across, ... of B (channels).
  int r0, c0, down, across, rows, columns;

  __device__ static int first() { return static_cast<int>(threadIdx.x); }
  static constexpr int kStride = kMbThreads;
  __device__ MbProduct(int item, int rows, int columns)
      : down(ceil_div(rows, 4)), across(ceil_div(columns, 4)), rows(rows), columns(columns) {
    r0 = item / across;
    c0 = item - r0 * across;
  }
  /// sums += A B^T.
  __device__ __forceinline__ void add(const float* a, const float* b, int pitch, int depth, Sums& sum) const {
    const float *ra[4], *rb[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      ra[i] = a + min(r0 + i * down, rows - 1) * pitch;
      rb[i] = b + min(c0 + i * across, columns - 1) * pitch;
    }
    for (int k = 0; k < depth; k += 4) {
      float va[4][4];
#pragma unroll
      for (int i = 0; i < 4; ++i) Vec<float, 4>::load(ra[i] + k).to_float(va[i]);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        float vb[4];
        Vec<float, 4>::load(rb[j] + k).to_float(vb);
#pragma unroll
        for (int l = 0; l < 4; ++l)
#pragma unroll
          for (int i = 0; i < 4; ++i) sum[i][j] += va[i][l] * vb[l];
      }
    }
  }
  /// Calls row(r) for each row and put(what it returned, c, sums, how many of them count) for its sums.
  template <class Row, class Put>
  __device__ __forceinline__ void each(const Sums& sum, Row row, Put put) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (r0 + i * down >= rows) break;
      auto to = row(r0 + i * down);
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (c0 + j * across < columns) put(to, c0 + j * across, {sum[i][j]}, 1);
    }
  }
};

template <>
struct MbProduct<bf16> {
  using Sums = float[3][4];
  static constexpr int kNeighbours = 2;
  int r0, c0, rows, columns, group, quad;  // r0, c0: first row and column of the item

  __device__ static int first() { return static_cast<int>(threadIdx.x) / 32; }
  static constexpr int kStride = kMbThreads / 32;
  __device__ MbProduct(int item, int rows, int columns)
      : rows(rows),
        columns(columns),
        group(static_cast<int>(threadIdx.x) % 32 / 4),
        quad(static_cast<int>(threadIdx.x) % 4) {
    const int across = ceil_div(columns, 24);
    r0 = item / across * 16;
    c0 = item % across * 24;
  }
  /// All lanes of the warp must call.
  __device__ __forceinline__ void add(const bf16* a, const bf16* b, int pitch, int depth, Sums& sum) const {
    const bf16 *upper = a + min(r0 + group, rows - 1) * pitch + 4 * quad,
               *lower = a + min(r0 + group + 8, rows - 1) * pitch + 4 * quad, *rb[3];
#pragma unroll
    for (int j = 0; j < 3; ++j) rb[j] = b + min(c0 + 8 * j + group, columns - 1) * pitch + 4 * quad;
    for (int k = 0; k < depth; k += 16) {
      const uint2 u = Vec<bf16, 4>::load(upper + k).raw, l = Vec<bf16, 4>::load(lower + k).raw;
      const Bf16Pair va[4] = {u.x, l.x, u.y, l.y};
#pragma unroll
      for (int j = 0; j < 3; ++j)
        if (c0 + 8 * j < columns) {
          const uint2 v = Vec<bf16, 4>::load(rb[j] + k).raw;
          const Bf16Pair vb[2] = {v.x, v.y};
          mma_bf16(sum[j], va, vb);
        }
    }
  }
  template <class Row, class Put>
  __device__ __forceinline__ void each(const Sums& sum, Row row, Put put) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (r0 + group + 8 * i >= rows) break;
      auto to = row(r0 + group + 8 * i);
#pragma unroll
      for (int j = 0; j < 3; ++j) {
        const int c = c0 + 8 * j + 2 * quad;
        if (c < columns) put(to, c, {sum[j][2 * i], sum[j][2 * i + 1]}, columns - c);
      }
    }
  }
};

/// e of one chunk of `count` channels.
template <class T>
__device__ __forceinline__ void mb_expand(const MbProblem& g, const MbTile& t, int count,
                                          const MbParts<T>& at) {
  constexpr int N = MbProduct<T>::kNeighbours;
  const int pixels = t.images * t.in_pixels, channels = mb_deep<T>(count);
  for (int item = MbProduct<T>::first(); item < mb_items<T>(pixels, channels);
       item += MbProduct<T>::kStride) {
    const MbProduct<T> product(item, pixels, channels);
    typename MbProduct<T>::Sums sum = {};
    product.add(at.x, at.w_expand, mb_pitch<T>(g.in_channels), mb_deep<T>(g.in_channels), sum);
    product.each(
        sum, [&](int p) { return at.e + t.bordered(g, p) * g.p.chunk; },
        [&](T* to, int c, const float(&z)[N], int) {
          float f[N];
#pragma unroll
          for (int k = 0; k < N; ++k) f[k] = act_value_any<T>(g.act, z[k] + at.bias[c + k]);
          store_lanes<T, N>(to + c, f);
        });
  }
}

/// Adds one chunk to the sums of the projection. Item a of a thread or warp is the same in every chunk.
template <class T, int A>
__device__ __forceinline__ void mb_project(const MbProblem& g, int pixels, int count, const MbParts<T>& at,
                                           typename MbProduct<T>::Sums (&sum)[A]) {
#pragma unroll
  for (int a = 0; a < A; ++a) {
    const int item = MbProduct<T>::first() + a * MbProduct<T>::kStride;
    if (item < mb_items<T>(pixels, g.out_channels))
      MbProduct<T>(item, pixels, g.out_channels)
          .add(at.d, at.w_project, mb_pitch<T>(g.p.chunk), mb_deep<T>(count), sum[a]);
  }
}
/// The sums as rows of shared memory, from where they leave in vectors.
template <class T, int A>
__device__ __forceinline__ void mb_put_sums(const MbProblem& g, int pixels,
                                            const typename MbProduct<T>::Sums (&sum)[A], float* y) {
  constexpr int N = MbProduct<T>::kNeighbours;
#pragma unroll
  for (int a = 0; a < A; ++a) {
    const int item = MbProduct<T>::first() + a * MbProduct<T>::kStride;
    if (item < mb_items<T>(pixels, g.out_channels))
      MbProduct<T>(item, pixels, g.out_channels)
          .each(
              sum[a], [&](int p) { return y + p * g.out_channels; },
              [](float* to, int c, const float(&v)[N], int valid) {
#pragma unroll
                for (int k = 0; k < N; ++k)
                  if (k < valid) to[c + k] = v[k];
              });
  }
}

}  // namespace gm::GM_BACKEND_NS
