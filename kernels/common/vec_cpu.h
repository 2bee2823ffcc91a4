// One SIMD register of floats for the CPU kernels, in the width of the instruction set they are compiled for.
// Explicit vectors are used where a loop must keep many accumulators in registers, which auto-vectorisation
// does not promise; simple elementwise loops need only vmath.h.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/activation/activation.h"
#include "kernels/common/ceil_div.h"
#include "kernels/common/dtype.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

// Helpers on registers are never called: no vector register survives a call, so one that the compiler leaves
// out of line (it does in large files) costs more than its body.
#define GM_VEC_LAMBDA __attribute__((always_inline))
#define GM_VEC_INLINE inline GM_VEC_LAMBDA

namespace gm::GM_CPU_NS {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
typedef float VecF __attribute__((vector_size(kLanes * 4)));
typedef int32_t VecI __attribute__((vector_size(kLanes * 4)));
typedef uint32_t VecU __attribute__((vector_size(kLanes * 4)));
typedef uint16_t VecH __attribute__((vector_size(kLanes * 2)));

GM_VEC_INLINE VecF splat(float x) { return VecF{} + x; }

GM_VEC_INLINE VecF widen(VecH h) { return (VecF)(__builtin_convertvector(h, VecU) << 16); }
/// Rounds to nearest even; NaN stays NaN: the same bits as to_bf16.
GM_VEC_INLINE VecH narrow(VecF f) {
  const VecU u = (VecU)f;
  const VecU rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16, quiet = (u >> 16) | 0x40u;
  return __builtin_convertvector(f == f ? rounded : quiet, VecH);
}

/// kLanes neighbouring elements, any alignment.
GM_VEC_INLINE VecF load(const float* p) {
  VecF v;
  memcpy(&v, p, sizeof v);
  return v;
}
GM_VEC_INLINE VecF load(const bf16* p) {
  VecH h;
  memcpy(&h, p, sizeof h);
  return widen(h);
}
GM_VEC_INLINE void store(float* p, VecF v) { memcpy(p, &v, sizeof v); }
GM_VEC_INLINE void store(bf16* p, VecF v) {
  const VecH h = narrow(v);
  memcpy(p, &h, sizeof h);
}

// Masked by the instructions of AVX-512; elsewhere out of line after all: loops over lanes, inlined wherever
// a row may end, would be most of the code, and most widths are multiples of 8.
#if defined(__AVX512F__)
#define GM_VEC_PART GM_VEC_INLINE
#else
#define GM_VEC_PART __attribute__((noinline))
#endif
/// The first n < kLanes elements (the last channels of a row); other lanes are 0 and not touched in memory.
template <class T>
GM_VEC_PART VecF load_part(const T* p, int n) {
#if defined(__AVX512F__)
  const auto mask = static_cast<__mmask16>((1u << n) - 1);
  if constexpr (std::is_same_v<T, float>) return (VecF)_mm512_maskz_loadu_ps(mask, p);
  if constexpr (std::is_same_v<T, bf16>) return widen((VecH)_mm256_maskz_loadu_epi16(mask, p));
#endif
  float f[kLanes] = {};
  for (int i = 0; i < n; ++i) f[i] = to_float(p[i]);
  return load(f);
}
template <class T>
GM_VEC_PART void store_part(T* p, VecF v, int n) {
#if defined(__AVX512F__)
  const auto mask = static_cast<__mmask16>((1u << n) - 1);
  if constexpr (std::is_same_v<T, float>) return _mm512_mask_storeu_ps(p, mask, (__m512)v);
  if constexpr (std::is_same_v<T, bf16>) return _mm256_mask_storeu_epi16(p, mask, (__m256i)narrow(v));
#endif
  float f[kLanes];
  store(f, v);
  for (int i = 0; i < n; ++i) p[i] = from_float<T>(f[i]);
}
/// Full when !Part, else the first n elements.
template <bool Part, class T>
GM_VEC_INLINE VecF load_n(const T* p, int n) {
  if constexpr (Part) return load_part(p, n);
  return load(p);
}
template <bool Part, class T>
GM_VEC_INLINE void store_n(T* p, VecF v, int n) {
  if constexpr (Part)
    store_part(p, v, n);
  else
    store(p, v);
}

// The maskz forms with a full mask: the plain intrinsics draw a false "uninitialized" warning from GCC 12.
GM_VEC_INLINE VecF vmax(VecF a, VecF b) {
#if defined(__AVX512F__)
  return (VecF)_mm512_maskz_max_ps(__mmask16(-1), (__m512)a, (__m512)b);
#else
  return a > b ? a : b;
#endif
}
GM_VEC_INLINE VecF vmin(VecF a, VecF b) {
#if defined(__AVX512F__)
  return (VecF)_mm512_maskz_min_ps(__mmask16(-1), (__m512)a, (__m512)b);
#else
  return a < b ? a : b;
#endif
}
/// 1 / x within 2 ulp, for normal x. With AVX-512 an estimate and one Newton step: the divider delivers only
/// one lane a cycle and would be the bottleneck of every SiLU.
GM_VEC_INLINE VecF reciprocal(VecF x) {
#if defined(__AVX512F__)
  const VecF r = (VecF)_mm512_maskz_rcp14_ps(__mmask16(-1), (__m512)x);
  return r + r * (1.f - x * r);
#else
  return 1.f / x;
#endif
}

/// 1 / (1 + exp(-x)), relative error below 5e-7 for |x| < 20 (1e-6 without FMA). exp(-x) = 2^n 2^r with n the
/// nearest integer to -x log2(e), |r| <= 1/2, and the degree-5 minimax polynomial of 2^r (relative
/// error 7.5e-8).
GM_VEC_INLINE VecF fast_sigmoid(VecF x) {
  constexpr float kLog2e = 1.44269504f, kMagic = 12582912.f;  // adding kMagic rounds to an integer
  x = vmin(splat(87.f), vmax(splat(-87.f), x));               // in this order NaN stays NaN
  const VecF shifted = x * -kLog2e + kMagic, n = shifted - kMagic;
  const VecF r = x * -kLog2e - n;
  VecF p = r * 1.32764725e-3f + 9.67554189e-3f;
  p = p * r + 5.55071309e-2f;
  p = p * r + 2.40221202e-1f;
  p = p * r + 6.93146944e-1f;
  p = p * r + 1.00000012f;
#if defined(__AVX512F__)
  const VecF e = (VecF)_mm512_maskz_scalef_ps(__mmask16(-1), (__m512)p, (__m512)n);
#else
  // kMagic is zero in the bits that survive the shift, up to the bias.
  const VecF e = p * (VecF)(((VecI)shifted + 127) << 23);
#endif
  return reciprocal(1.f + e);
}

/// act(x), lane by lane.
template <Act A>
GM_VEC_INLINE VecF act_value(VecF x) {
  if constexpr (A == Act::silu) return x * fast_sigmoid(x);
  if constexpr (A == Act::relu) return vmax(x, splat(0.f));
  if constexpr (A == Act::relu6) return vmin(vmax(x, splat(0.f)), splat(6.f));
  if constexpr (A == Act::sigmoid) return fast_sigmoid(x);
  return x;
}
/// d act(x) / dx, lane by lane.
template <Act A>
GM_VEC_INLINE VecF act_slope(VecF x) {
  if constexpr (A == Act::silu) {
    const VecF s = fast_sigmoid(x);
    return s + x * s * (1.f - s);
  }
  if constexpr (A == Act::relu) return x > 0.f ? splat(1.f) : splat(0.f);
  if constexpr (A == Act::relu6) return (x > 0.f) & (x < 6.f) ? splat(1.f) : splat(0.f);
  if constexpr (A == Act::sigmoid) {
    const VecF s = fast_sigmoid(x);
    return s * (1.f - s);
  }
  return splat(1.f);
}

/// Cuts `channels` into strips of up to Max registers, as equal as possible, and calls
/// f(registers, part, first, count) for each: `registers` (an integral constant) loads starting at channel
/// `first`; `part` (a bool constant) says that the last of them holds only `count` channels.
template <int Max, class F>
inline void for_strips(int64_t channels, F&& f) {
  static_assert(Max >= 1 && Max <= 4);
  const int64_t registers = ceil_div(channels, kLanes), strips = ceil_div(registers, Max);
  for (int64_t s = 0; s < strips; ++s) {
    const int64_t begin = registers * s / strips, end = registers * (s + 1) / strips;
    const bool part = end * kLanes > channels;
    const int count = part ? static_cast<int>(channels - (end - 1) * kLanes) : kLanes;
    auto call = [&](auto n) {
      if constexpr (n.value <= Max) {
        if (part)
          f(n, std::true_type{}, begin * kLanes, count);
        else
          f(n, std::false_type{}, begin * kLanes, count);
      }
    };
    switch (end - begin) {
      case 1:
        call(std::integral_constant<int, 1>{});
        break;
      case 2:
        call(std::integral_constant<int, 2>{});
        break;
      case 3:
        call(std::integral_constant<int, 3>{});
        break;
      default:
        call(std::integral_constant<int, 4>{});
    }
  }
}

}  // namespace gm::GM_CPU_NS
