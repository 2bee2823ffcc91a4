// Products of bf16 fragments by a warp's matrix unit (mma.m16n8k16, sm_80 and later), and the same by
// shuffles for the test device, from the layout that the PTX manual gives (section "Matrix Fragments for
// mma.m16n8k16").
#pragma once
#include "kernels/common/dtype.h"
#include "kernels/common/simt.h"

namespace gm::GM_BACKEND_NS {

/// Two neighbouring values of a row along the depth, the earlier one in the lower half.
using Bf16Pair = unsigned;

/// sum (16 x 8) += a (16 x 16) * b (16 x 8). All 32 lanes must call. With group = lane / 4, t = lane % 4 a
/// lane holds
///   a[0], a[1]      rows group and group + 8, depth 2t, 2t + 1
///   a[2], a[3]      the same rows, depth 2t + 8, 2t + 9
///   b[0], b[1]      column group, depth 2t, 2t + 1 and 2t + 8, 2t + 9
///   sum[0], sum[1]  row group, columns 2t, 2t + 1
///   sum[2], sum[3]  row group + 8, the same columns
/// A sum over the depth does not ask for its order, so a caller may let "depth 2t, 2t + 1, 2t + 8, 2t + 9" be
/// any four places, the same ones for a and b: neighbouring ones are one 8-byte load.
__device__ __forceinline__ void mma_bf16(float (&sum)[4], const Bf16Pair (&a)[4], const Bf16Pair (&b)[2]) {
#if defined(__CUDACC__)
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  constexpr unsigned kAll = 0xffffffffu;
  const int lane = static_cast<int>(threadIdx.x) % 32, group = lane / 4, t = lane % 4;
  auto low = [](Bf16Pair p) { return to_float(bf16{static_cast<uint16_t>(p)}); };
  auto high = [](Bf16Pair p) { return to_float(bf16{static_cast<uint16_t>(p >> 16)}); };
  auto both = [](Bf16Pair first, Bf16Pair second) { return first | uint64_t{second} << 32; };
  auto dot = [&](Bf16Pair x, Bf16Pair y) { return low(x) * low(y) + high(x) * high(y); };
  for (int q = 0; q < 4; ++q) {
    uint64_t row[2], column[2];
    for (int half = 0; half < 2; ++half)
      row[half] = __shfl_sync(kAll, both(a[2 * half], a[2 * half + 1]), group * 4 + q);
    for (int j = 0; j < 2; ++j) column[j] = __shfl_sync(kAll, both(b[0], b[1]), (2 * t + j) * 4 + q);
    for (int half = 0; half < 2; ++half)
      for (int j = 0; j < 2; ++j) {
        const auto y = static_cast<Bf16Pair>(column[j] >> 32 * half);
        sum[j] += dot(static_cast<Bf16Pair>(row[half]), y);
        sum[2 + j] += dot(static_cast<Bf16Pair>(row[half] >> 32), y);
      }
  }
#endif
}

/// Values of a quad of lanes turned: lane q's v[i] becomes lane i's v[q]. All 32 lanes must call.
__device__ __forceinline__ void turn_quad(Bf16Pair (&v)[4]) {
#pragma unroll
  for (int step = 2; step > 0; step /= 2) {
    const bool upper = static_cast<int>(threadIdx.x) & step;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i & step) continue;
      const Bf16Pair got = __shfl_xor_sync(0xffffffffu, upper ? v[i] : v[i + step], step);
      (upper ? v[i] : v[i + step]) = got;
    }
  }
}

/// Columns of pairs of products dealt so that a lane ends with four neighbouring ones of a row, where as they
/// come it has two of each product: column 16 i + 8 j + 2 t + e of the products is the column
/// 16 i + 4 t + 2 j + e of the result.
__device__ __forceinline__ int column_in_fours(int column) {
  return column / 16 * 16 + column / 2 % 4 * 4 + column / 8 % 2 * 2 + column % 2;
}

/// Four 8 x 8 matrices of bf16 in shared memory as fragments. Lane l gives the place of row l % 8 of matrix
/// l / 8, eight neighbouring values at a multiple of 16 bytes. All 32 lanes must call. m[i] is of matrix i,
/// with group and t as above: row group, columns 2t, 2t + 1; turned: rows 2t, 2t + 1 of column group.
template <bool kTurned>
__device__ __forceinline__ void load_matrices(const uint4* row, Bf16Pair (&m)[4]) {
#if defined(__CUDACC__)
  const unsigned place = static_cast<unsigned>(__cvta_generic_to_shared(row));
  if constexpr (kTurned) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(place)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(place)
                 : "memory");
  }
#else
  constexpr unsigned kAll = 0xffffffffu;
  const int lane = static_cast<int>(threadIdx.x) % 32, group = lane / 4, t = lane % 4;
  const auto mine = reinterpret_cast<uint64_t>(row);
  auto value = [](uint64_t at, int column) {
    return Bf16Pair{reinterpret_cast<const bf16*>(at)[column].bits};
  };
  for (int i = 0; i < 4; ++i) {
    const uint64_t first = __shfl_sync(kAll, mine, 8 * i + (kTurned ? 2 * t : group)),
                   second = __shfl_sync(kAll, mine, 8 * i + (kTurned ? 2 * t + 1 : group));
    m[i] = value(first, kTurned ? group : 2 * t) | value(second, kTurned ? group : 2 * t + 1) << 16;
  }
#endif
}

}  // namespace gm::GM_BACKEND_NS
