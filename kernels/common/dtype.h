// Element types and the one 16-bit float of the engine.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define GM_HOST_DEVICE __host__ __device__
#else
#define GM_HOST_DEVICE
#endif

namespace gm {

enum class DType : uint8_t { f32, bf16, i32, u8, f64 };  // f64 exists for the reference kernels only

constexpr size_t dtype_bytes(DType t) {
  switch (t) {
    case DType::f64:
      return 8;
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::bf16:
      return 2;
    case DType::u8:
      return 1;
  }
  return 0;
}
constexpr const char* dtype_name(DType t) {
  switch (t) {
    case DType::f64:
      return "f64";
    case DType::f32:
      return "f32";
    case DType::i32:
      return "i32";
    case DType::bf16:
      return "bf16";
    case DType::u8:
      return "u8";
  }
  return "?";
}

/// bfloat16: the upper half of an IEEE f32. Storage only; arithmetic is done in f32.
struct bf16 {
  uint16_t bits;
};

GM_HOST_DEVICE inline float to_float(float x) { return x; }
GM_HOST_DEVICE inline float to_float(bf16 x) {
  uint32_t u = static_cast<uint32_t>(x.bits) << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}
/// Rounds to nearest even; NaN stays NaN. Branch-free so that host loops vectorise; one instruction on a GPU.
GM_HOST_DEVICE inline bf16 to_bf16(float f) {
#if defined(__CUDA_ARCH__)
  bf16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(f));
  return y;
#else
  uint32_t u;
  memcpy(&u, &f, 4);
  uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  uint32_t quiet = (u >> 16) | 0x40u;
  return bf16{static_cast<uint16_t>((u & 0x7fffffffu) > 0x7f800000u ? quiet : rounded)};
#endif
}
template <class T>
GM_HOST_DEVICE inline T from_float(float f);
template <>
GM_HOST_DEVICE inline float from_float<float>(float f) {
  return f;
}
template <>
GM_HOST_DEVICE inline bf16 from_float<bf16>(float f) {
  return to_bf16(f);
}

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct DTypeOf<bf16> {
  static constexpr DType value = DType::bf16;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::f64;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::i32;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType value = DType::u8;
};

}  // namespace gm
