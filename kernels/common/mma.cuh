// Products of bf16 fragments by a warp's matrix unit (mma.m16n8k16, sm_80 and later), and the same by
// shuffles for the test device, from the layout that the PTX manual gives (section "Matrix Fragments for
// mma.m16n8k16").
#pragma once
#include "kernels/common/dtype.h"
#include "kernels/common/simt.h"

namespace gm::GM_BACKEND_NS {

/// Two neighbouring values of a row along the depth, the earlier one in the lower half.
using HalfPair = unsigned;

/// sum (16 x 8) += a (16 x 16) * b (16 x 8). All 32 lanes must call. With group = lane / 4, t = lane % 4 a
/// lane holds
///   a[0], a[1]      rows group and group + 8, depth 2t, 2t + 1
///   a[2], a[3]      the same rows, depth 2t + 8, 2t + 9
///   b[0], b[1]      column group, depth 2t, 2t + 1 and 2t + 8, 2t + 9
///   sum[0], sum[1]  row group, columns 2t, 2t + 1
///   sum[2], sum[3]  row group + 8, the same columns
/// A sum over the depth does not ask for its order, so a caller may let "depth 2t, 2t + 1, 2t + 8, 2t + 9" be
/// any four places, the same ones for a and b: neighbouring ones are one 8-byte load.
__device__ __forceinline__ void mma_bf16(float (&sum)[4], const HalfPair (&a)[4], const HalfPair (&b)[2]) {
#if defined(__CUDACC__)
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  constexpr unsigned kAll = 0xffffffffu;
  const int lane = static_cast<int>(threadIdx.x) % 32, group = lane / 4, t = lane % 4;
  auto low = [](HalfPair p) { return to_float(bf16{static_cast<uint16_t>(p)}); };
  auto high = [](HalfPair p) { return to_float(bf16{static_cast<uint16_t>(p >> 16)}); };
  for (int half = 0; half < 2; ++half)
    for (int q = 0; q < 4; ++q) {
      const HalfPair upper = __shfl_sync(kAll, a[2 * half], group * 4 + q),
                     lower = __shfl_sync(kAll, a[2 * half + 1], group * 4 + q);
      for (int j = 0; j < 2; ++j) {
        const HalfPair column = __shfl_sync(kAll, b[half], (2 * t + j) * 4 + q);
        sum[j] += low(upper) * low(column) + high(upper) * high(column);
        sum[2 + j] += low(lower) * low(column) + high(lower) * high(column);
      }
    }
#endif
}

}  // namespace gm::GM_BACKEND_NS
