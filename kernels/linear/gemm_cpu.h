// Single-thread f32 matrix product C = A * B for CPU kernels: small and tall-skinny shapes without setup.
// Operands may be f32 or bf16 in memory; products and sums are f32.
//
// Register tile: MR rows of A times NV vectors of B. A is read in place by broadcasts (any two strides, so
// A^T costs nothing); B is copied into panels of NV vectors, zero-padded at the right edge.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "kernels/common/ceil_div.h"
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
  return static_cast<int>(std::min<int64_t>(kPanelVectors, ceil_div(n - j, kLanes)));
}
/// Floats of a packed B with `depth` rows and n columns.
inline int64_t packed_b_floats(int64_t depth, int64_t n) { return depth * round_up(n, kLanes); }

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

/// Depth of one pass of gemm: both operands' slabs should stay in the first cache, A being read once per
/// panel of B.
inline int64_t gemm_depth(int64_t m, int64_t n) {
  return std::clamp<int64_t>(8192 / (std::min<int64_t>(n, kPanelWidth) + m), 48, kGemmDepth);
}
/// C[m][n] (+)= A * B with a[i*ai + k*ak] in f32 and row-major b (depth, n), packed here piece by piece. For
/// few products per element of B; scratch: gemm_scratch(n) floats.
inline int64_t gemm_scratch(int64_t n) { return kGemmDepth * (n + kLanes); }
template <class TB>
inline void gemm(int64_t m, int64_t n, int64_t depth, const float* a, int64_t ai, int64_t ak, const TB* b,
                 int64_t ldb, float* c, int64_t ldc, bool accumulate, float* scratch) {
  const int64_t step = gemm_depth(m, n);
  for (int64_t k = 0; k < depth; k += step) {
    const int64_t deep = std::min(step, depth - k);
    pack_b(deep, n, b + k * ldb, ldb, 1, scratch);
    for (int64_t j = 0; j < n; j += kPanelWidth)
      gemm_panel(panel_vectors(n, j), m, deep, a + k * ak, ai, ak, scratch + deep * j, c + j, ldc, n - j,
                 accumulate || k > 0);
  }
}

/// C[m][n] += A^T * B over `depth` rows that both operands share: a (depth, m), b (depth, n), row-major. The
/// form of weight gradients: depth is pixels, m and n are channels. scratch: gemm_tn_scratch(m, n) floats.
inline int64_t gemm_tn_scratch(int64_t m, int64_t n) { return gemm_scratch(n) + kGemmDepth * m; }
template <class TA, class TB>
inline void gemm_tn(int64_t m, int64_t n, int64_t depth, const TA* a, int64_t lda, const TB* b, int64_t ldb,
                    float* c, int64_t ldc, float* scratch) {
  if constexpr (sizeof(TA) == 4) {
    gemm(m, n, depth, a, 1, lda, b, ldb, c, ldc, true, scratch);
  } else {
    float* wide = scratch + gemm_scratch(n);
    for (int64_t k = 0; k < depth; k += kGemmDepth) {
      const int64_t deep = std::min(kGemmDepth, depth - k);
      for (int64_t i = 0; i < deep; ++i)
        for (int64_t j = 0; j < m; ++j) wide[i * m + j] = to_float(a[(k + i) * lda + j]);
      gemm(m, n, deep, wide, 1, m, b + k * ldb, ldb, c, ldc, true, scratch);
    }
  }
}

// ---- few rows: dot products, nothing packed
inline Vec load_vec(const float* p) { return *reinterpret_cast<const VecU*>(p); }
inline Vec load_vec(const bf16* p) {
  using Half __attribute__((vector_size(kLanes * 2), aligned(2), may_alias)) = uint16_t;
  using Wide __attribute__((vector_size(kLanes * 4))) = uint32_t;
  return reinterpret_cast<Vec>(__builtin_convertvector(*reinterpret_cast<const Half*>(p), Wide) << 16);
}
template <int MR, int NR, class TA, class TB>
inline void dot_tile(int64_t depth, const TA* a, int64_t lda, const TB* b, int64_t ldb, float* c,
                     int64_t ldc) {
  Vec sum[MR][NR] = {};
  int64_t k = 0;
  for (; k + kLanes <= depth; k += kLanes) {
    Vec vb[NR];
#pragma GCC unroll 4
    for (int j = 0; j < NR; ++j) vb[j] = load_vec(b + j * ldb + k);
#pragma GCC unroll 4
    for (int i = 0; i < MR; ++i) {
      const Vec va = load_vec(a + i * lda + k);
#pragma GCC unroll 4
      for (int j = 0; j < NR; ++j) sum[i][j] += va * vb[j];
    }
  }
  float lanes[MR * NR][kLanes];
#pragma GCC unroll 4
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < NR; ++j) *reinterpret_cast<VecU*>(lanes[i * NR + j]) = sum[i][j];
  for (int i = 0; i < MR; ++i)
    for (int j = 0; j < NR; ++j) {
      float* s = lanes[i * NR + j];
      for (int width = kLanes / 2; width > 0; width /= 2)
        for (int l = 0; l < width; ++l) s[l] += s[l + width];
      float total = s[0];
      for (int64_t t = k; t < depth; ++t) total += to_float(a[i * lda + t]) * to_float(b[j * ldb + t]);
      c[i * ldc + j] = total;
    }
}
/// C[m][n] = A * B^T, a (m, depth), b (n, depth), row-major.
template <class TA, class TB>
inline void gemm_nt(int64_t m, int64_t n, int64_t depth, const TA* a, int64_t lda, const TB* b, int64_t ldb,
                    float* c, int64_t ldc) {
  for (int64_t j = 0; j < n;) {
    const bool wide = n - j >= 4;
    int64_t i = 0;
    for (; i + 4 <= m; i += 4)
      if (wide)
        dot_tile<4, 4>(depth, a + i * lda, lda, b + j * ldb, ldb, c + i * ldc + j, ldc);
      else
        dot_tile<4, 1>(depth, a + i * lda, lda, b + j * ldb, ldb, c + i * ldc + j, ldc);
    for (; i < m; ++i)
      if (wide)
        dot_tile<1, 4>(depth, a + i * lda, lda, b + j * ldb, ldb, c + i * ldc + j, ldc);
      else
        dot_tile<1, 1>(depth, a + i * lda, lda, b + j * ldb, ldb, c + i * ldc + j, ldc);
    j += wide ? 4 : 1;
  }
}

}  // namespace gm::GM_CPU_NS
