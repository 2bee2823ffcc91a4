// Single-thread f32 matrix product C = A * B for CPU kernels: small and tall-skinny shapes without setup.
// Operands may be f32 or bf16 in memory; products and sums are f32.
//
// Register tile: MR rows of A times NV vectors of B. A is read in place by broadcasts (any two strides, so
// A^T costs nothing); B is copied into panels of NV vectors, zero-padded at the right edge.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "kernels/common/dtype.h"

namespace gm::GM_CPU_NS {

#if defined(__AVX512F__)
constexpr int kLanes = 16, kPanelVectors = 3;  // 24 accumulators of 32 registers
template <int NV>
constexpr int kTileRows = NV == 3   ? 8
                          : NV == 2 ? 12
                                    : 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8, kPanelVectors = 2;  // 12 accumulators of 16 registers
template <int NV>
constexpr int kTileRows = NV == 2 ? 6 : 8;
#else
constexpr int kLanes = 4, kPanelVectors = 2;
template <int NV>
constexpr int kTileRows = NV == 2 ? 6 : 8;
#endif
constexpr int kPanelWidth = kLanes * kPanelVectors;
constexpr int64_t kGemmDepth = 256;  // rows of B per pass: a panel of 48 KB stays in the first caches

using Vec __attribute__((vector_size(kLanes * 4))) = float;
using VecU __attribute__((vector_size(kLanes * 4), aligned(4), may_alias)) = float;  // unaligned memory

/// Vectors of the panel that starts at column j of n: full panels, then one narrower panel.
inline int panel_vectors(int64_t n, int64_t j) {
  return static_cast<int>(std::min<int64_t>(kPanelVectors, (n - j + kLanes - 1) / kLanes));
}
/// Floats of a packed B with `depth` rows and n columns.
inline int64_t packed_b_floats(int64_t depth, int64_t n) {
  return depth * ((n + kLanes - 1) / kLanes * kLanes);
}

/// Packs B[k][j] = b[k*bk + j*bj]; panel at column j starts at packed + depth*j.
template <class T>
inline void pack_b(int64_t depth, int64_t n, const T* b, int64_t bk, int64_t bj, float* packed) {
  for (int64_t j = 0; j < n; j += kPanelWidth) {
    const int64_t width = int64_t{kLanes} * panel_vectors(n, j), valid = std::min(width, n - j);
    float* panel = packed + depth * j;
    for (int64_t k = 0; k < depth; ++k) {
      const T* row = b + k * bk + j * bj;
      float* to = panel + k * width;
      if (bj == 1)
        for (int64_t i = 0; i < valid; ++i) to[i] = to_float(row[i]);
      else
        for (int64_t i = 0; i < valid; ++i) to[i] = to_float(row[i * bj]);
      for (int64_t i = valid; i < width; ++i) to[i] = 0;
    }
  }
}

/// c[MR][columns] (+)= a[MR][depth] * panel[depth][NV vectors]; a element (i, k) at a[i*ai + k*ak].
template <int MR, int NV>
inline void gemm_tile(int64_t depth, const float* a, int64_t ai, int64_t ak, const float* panel, float* c,
                      int64_t ldc, int64_t columns, bool accumulate) {
  Vec sum[MR][NV] = {};
  for (int64_t k = 0; k < depth; ++k, panel += NV * kLanes, a += ak) {
    Vec b[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) b[v] = *reinterpret_cast<const VecU*>(panel + v * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      const float s = a[i * ai];
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) sum[i][v] += s * b[v];
    }
  }
  if (columns >= NV * kLanes) {
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        VecU* to = reinterpret_cast<VecU*>(c + i * ldc + v * kLanes);
        *to = accumulate ? *to + sum[i][v] : sum[i][v];
      }
    return;
  }
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i) {
    float row[NV * kLanes];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) *reinterpret_cast<VecU*>(row + v * kLanes) = sum[i][v];
    for (int64_t j = 0; j < columns; ++j) c[i * ldc + j] = accumulate ? c[i * ldc + j] + row[j] : row[j];
  }
}

/// All rows of one panel.
template <int NV>
inline void gemm_panel(int64_t m, int64_t depth, const float* a, int64_t ai, int64_t ak, const float* panel,
                       float* c, int64_t ldc, int64_t columns, bool accumulate) {
  constexpr int MR = kTileRows<NV>;
  int64_t i = 0;
  for (; i + MR <= m; i += MR)
    gemm_tile<MR, NV>(depth, a + i * ai, ai, ak, panel, c + i * ldc, ldc, columns, accumulate);
  for (; i + 4 <= m; i += 4)
    gemm_tile<4, NV>(depth, a + i * ai, ai, ak, panel, c + i * ldc, ldc, columns, accumulate);
  for (; i < m; ++i)
    gemm_tile<1, NV>(depth, a + i * ai, ai, ak, panel, c + i * ldc, ldc, columns, accumulate);
}
inline void gemm_panel(int vectors, int64_t m, int64_t depth, const float* a, int64_t ai, int64_t ak,
                       const float* panel, float* c, int64_t ldc, int64_t columns, bool accumulate) {
  if constexpr (kPanelVectors == 3)
    if (vectors == 3) return gemm_panel<3>(m, depth, a, ai, ak, panel, c, ldc, columns, accumulate);
  if (vectors == 2) return gemm_panel<2>(m, depth, a, ai, ak, panel, c, ldc, columns, accumulate);
  gemm_panel<1>(m, depth, a, ai, ak, panel, c, ldc, columns, accumulate);
}

/// C[m][n] (+)= A[m][depth] * B with B packed by pack_b. Rows go in blocks whose A stays in the second cache.
inline void gemm_packed(int64_t m, int64_t n, int64_t depth, const float* a, int64_t ai, int64_t ak,
                        const float* packed, float* c, int64_t ldc, bool accumulate) {
  constexpr int64_t kRows = 192;
  for (int64_t i = 0; i < m; i += kRows)
    for (int64_t k = 0; k < depth; k += kGemmDepth) {
      const int64_t rows = std::min(kRows, m - i), deep = std::min(kGemmDepth, depth - k);
      for (int64_t j = 0; j < n; j += kPanelWidth) {
        const int vectors = panel_vectors(n, j);
        gemm_panel(vectors, rows, deep, a + i * ai + k * ak, ai, ak,
                   packed + depth * j + k * vectors * kLanes, c + i * ldc + j, ldc, n - j,
                   accumulate || k > 0);
      }
    }
}

/// C[m][n] += A^T * B over `depth` rows that both operands share: a (depth, m), b (depth, n), row-major. The
/// form of weight gradients: depth is pixels, m and n are channels. The caller gives scratch for
/// gemm_tn_scratch(m, n) floats.
inline int64_t gemm_tn_scratch(int64_t m, int64_t n) { return kGemmDepth * (m + n + 2 * kLanes); }
template <class TA, class TB>
inline void gemm_tn(int64_t m, int64_t n, int64_t depth, const TA* a, int64_t lda, const TB* b, int64_t ldb,
                    float* c, int64_t ldc, float* scratch) {
  for (int64_t k = 0; k < depth; k += kGemmDepth) {
    const int64_t deep = std::min(kGemmDepth, depth - k);
    pack_b(deep, n, b + k * ldb, ldb, 1, scratch);
    const float* rows = nullptr;
    int64_t stride = lda;
    if constexpr (sizeof(TA) == 4) {
      rows = a + k * lda;
    } else {
      float* wide = scratch + packed_b_floats(kGemmDepth, n);
      for (int64_t i = 0; i < deep; ++i)
        for (int64_t j = 0; j < m; ++j) wide[i * m + j] = to_float(a[(k + i) * lda + j]);
      rows = wide;
      stride = m;
    }
    for (int64_t j = 0; j < n; j += kPanelWidth)
      gemm_panel(panel_vectors(n, j), m, deep, rows, 1, stride, scratch + deep * j, c + j, ldc, n - j, true);
  }
}

}  // namespace gm::GM_CPU_NS
