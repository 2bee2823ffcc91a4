// C = A * B with operands fetched by functors: the shared-memory product behind our own convolution and dense
// layer, and the first stage of their bias gradients' sums (the second: partials.cuh).
//
// Thread mapping: a block of 256 threads owns a 64 x 64 tile of C; a thread owns 4 x 4 of it in registers, so
// that two 16-byte reads of shared memory feed 16 multiply-adds. Each step loads 16 values of the depth:
// every thread fetches four neighbouring ones with one vector access when the operand allows, else one by
// one. The next step's values are fetched into registers before the current step is multiplied.
#pragma once
#include "kernels/common/ceil_div.h"
#include "kernels/common/math.cuh"
#include "kernels/common/simt.h"

namespace gm::GM_BACKEND_NS {

constexpr int kTile = 64, kDepth = 16, kTileThreads = 256;
constexpr int kPitch = kTile + 4;  // rows of a slab start four banks apart

/// Tiles that cover n rows or columns.
inline unsigned tiles(int64_t n) { return static_cast<unsigned>(ceil_div(n, kTile)); }

/// Four neighbouring values, zero from index `valid` on. With vectors either all four are valid or none.
template <class T, bool kVector>
__device__ __forceinline__ void load4(const T* p, int valid, float (&v)[4]) {
  if constexpr (kVector) {
    if (valid > 0) {
      Vec<T, 4>::load(p).to_float(v);
      return;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = 0.f;
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = i < valid ? to_float(p[i]) : 0.f;
  }
}

// An operand has load(row or column of C, position along the depth, values) and says whether its four values
// lie along the depth or along the rows/columns of C.

/// p[row][depth], row-major.
template <class T, bool kVector>
struct RowOperand {
  static constexpr bool kAlongDepth = true;
  const T* p;
  int64_t rows, depth;
  __device__ void load(int64_t row, int64_t d, float (&v)[4]) const {
    load4<T, kVector>(p + row * depth + d, row < rows && d < depth ? static_cast<int>(depth - d) : 0, v);
  }
};
/// p[depth][column], row-major.
template <class T, bool kVector>
struct ColumnOperand {
  static constexpr bool kAlongDepth = false;
  const T* p;
  int64_t depth, columns;
  __device__ void load(int64_t column, int64_t d, float (&v)[4]) const {
    load4<T, kVector>(p + d * columns + column,
                      column < columns && d < depth ? static_cast<int>(columns - column) : 0, v);
  }
};

// Position of this thread's four values in a 64 x 16 slab.
template <class Operand>
__device__ __forceinline__ void slab_place(int& row, int& d) {
  const int t = static_cast<int>(threadIdx.x);
  row = Operand::kAlongDepth ? t / 4 : t % 16 * 4;
  d = Operand::kAlongDepth ? t % 4 * 4 : t / 16;
}
template <class Operand>
__device__ __forceinline__ void slab_store(float (*slab)[kPitch], const float (&v)[4]) {
  int row, d;
  slab_place<Operand>(row, d);
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if constexpr (Operand::kAlongDepth)
      slab[d + i][row] = v[i];
    else
      slab[d][row + i] = v[i];
}

// Sums of this thread's 4 x 4 elements over d in [d_begin, d_end). Every thread of the block must call.
template <class A, class B>
__device__ __forceinline__ void tile_product(const A& a, const B& b, int64_t m0, int64_t n0, int64_t d_begin,
                                             int64_t d_end, float (&sum)[4][4]) {
  GM_SHARED(float, slab_a, [kDepth][kPitch]);
  GM_SHARED(float, slab_b, [kDepth][kPitch]);
  const int tx = static_cast<int>(threadIdx.x) % 16, ty = static_cast<int>(threadIdx.x) / 16;
  int row_a, depth_a, row_b, depth_b;
  slab_place<A>(row_a, depth_a);
  slab_place<B>(row_b, depth_b);
  float next_a[4], next_b[4];
  a.load(m0 + row_a, d_begin + depth_a, next_a);
  b.load(n0 + row_b, d_begin + depth_b, next_b);
  for (int64_t d = d_begin; d < d_end; d += kDepth) {
    slab_store<A>(slab_a, next_a);
    slab_store<B>(slab_b, next_b);
    __syncthreads();
    if (d + kDepth < d_end) {
      a.load(m0 + row_a, d + kDepth + depth_a, next_a);
      b.load(n0 + row_b, d + kDepth + depth_b, next_b);
    }
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
      float va[4], vb[4];
      Vec<float, 4>::load(&slab_a[k][ty * 4]).to_float(va);
      Vec<float, 4>::load(&slab_b[k][tx * 4]).to_float(vb);
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][j] += va[i] * vb[j];
    }
    __syncthreads();
  }
}

// First stage of a bias gradient: sums of the columns of dy (rows, k) over slice blockIdx.y of its rows.
// Block: 32 channels x 8 rows of threads; neighbouring threads read neighbouring channels.
template <class T>
static __global__ void column_sums_kernel(const T* dy, int64_t rows, int k, int64_t slice, float* partials) {
  await_launch_before();
  GM_SHARED(float, sums, [8][32]);
  const int lane = static_cast<int>(threadIdx.x), line = static_cast<int>(threadIdx.y);
  const int channel = static_cast<int>(blockIdx.x) * 32 + lane;
  const int64_t begin = blockIdx.y * slice, end = begin + slice < rows ? begin + slice : rows;
  float sum = 0.f;
  if (channel < k)
    for (int64_t r = begin + line; r < end; r += 8) sum += to_float(dy[r * k + channel]);
  sums[line][lane] = sum;
  __syncthreads();
  if (line == 0 && channel < k) {
    float total = 0.f;
    for (int i = 0; i < 8; ++i) total += sums[i][lane];
    partials[int64_t{blockIdx.y} * k + channel] = total;
  }
}

}  // namespace gm::GM_BACKEND_NS
