// Arithmetic and memory helpers for kernels. All arithmetic is f32; storage is f32 or bf16.
#pragma once
#include "kernels/common/dtype.h"
#include "kernels/common/simt.h"

namespace gm::GM_BACKEND_NS {

// expf, not __expf: these kernels are bound by memory, and the relative error of __expf grows with |x| (2
// + 1.2 |x| ulp), which the gradient of deep SiLU chains would see. With expf within 2 ulp and a correctly
// rounded division:

/// 1 / (1 + exp(-x)), relative error below 4e-7 for x > -87; smaller x underflow to 0.
__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

/// x * sigmoid(x), relative error below 4e-7 for x > -87. Written as one division so that a large negative x
/// gives -0 rather than NaN.
__device__ __forceinline__ float silu(float x) { return x / (1.0f + expf(-x)); }

/// d silu / dx = s + x s (1 - s), s = sigmoid(x); absolute error below 3e-7. Both s and 1 - s come from
/// exp(-|x|), because 1.0f - s loses all bits of a large x's small gradient correction and multiplies them by
/// x.
__device__ __forceinline__ float silu_grad(float x) {
  const float e = expf(-fabsf(x)), larger = 1.0f / (1.0f + e), smaller = e * larger;
  return (x >= 0.0f ? larger : smaller) + x * larger * smaller;
}

template <int kBytes>
struct RawWord;
template <>
struct RawWord<4> {
  using type = uint1;
};
template <>
struct RawWord<8> {
  using type = uint2;
};
template <>
struct RawWord<16> {
  using type = uint4;
};

/// N neighbouring elements moved by one 4-, 8- or 16-byte instruction: Vec<float, 4>, Vec<bf16, 8> are 16
/// bytes. Addresses must be multiples of that size; the GPU faults otherwise, and the test device throws.
template <class T, int N>
struct Vec {
  static constexpr int kBytes = N * static_cast<int>(sizeof(T));
  using Raw = typename RawWord<kBytes>::type;
  Raw raw;

  __device__ __forceinline__ static Vec load(const T* p) {
    check_aligned(p);
    return Vec{*reinterpret_cast<const Raw*>(p)};
  }
  __device__ __forceinline__ void store(T* p) const {
    check_aligned(p);
    *reinterpret_cast<Raw*>(p) = raw;
  }
  __device__ __forceinline__ void to_float(float (&f)[N]) const {
    T t[N];
    memcpy(t, &raw, kBytes);
#pragma unroll
    for (int i = 0; i < N; ++i) f[i] = gm::to_float(t[i]);
  }
  __device__ __forceinline__ static Vec from_float(const float (&f)[N]) {
    T t[N];
#pragma unroll
    for (int i = 0; i < N; ++i) t[i] = gm::from_float<T>(f[i]);
    Vec v;
    memcpy(&v.raw, t, kBytes);
    return v;
  }

 private:
  __device__ __forceinline__ static void check_aligned([[maybe_unused]] const void* p) {
#if !defined(__CUDACC__)
    if (reinterpret_cast<uintptr_t>(p) % kBytes != 0)
      simt::kernel_fault("misaligned vector access of " + std::to_string(kBytes) + " bytes",
                         simt::Site::current());
#endif
  }
};

/// Elements of T in the widest access, 16 bytes.
template <class T>
inline constexpr int kVecLanes = 16 / static_cast<int>(sizeof(T));

}  // namespace gm::GM_BACKEND_NS
