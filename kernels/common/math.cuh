// Arithmetic and memory helpers for kernels. All arithmetic is f32; storage is f32 or bf16.
#pragma once
#include "kernels/common/dtype.h"
#include "kernels/common/simt.h"

namespace gm::GM_BACKEND_NS {

// exp and 1 / x by the units that approximate them, one instruction each: 2^x within 2 ulp, 1 / x within 1
// ulp, subnormal results are 0. A call of expf and a division take about 25 instructions, more than a pass
// bound by memory has time for. On fibers exp2f and a division stand for the two.
__device__ __forceinline__ float approximate_exp2(float x) {
#if defined(__CUDACC__)
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return exp2f(x);
#endif
}
__device__ __forceinline__ float approximate_reciprocal(float x) {
#if defined(__CUDACC__)
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return 1.0f / x;
#endif
}

// Errors below follow from those of the two units and from rounding x log2(e), which costs exp(-x) a relative
// 8e-8 |x|.

/// 1 / (1 + exp(-x)), 4 instructions; relative error below 4e-7 for x >= 0 and 4e-7 + 8e-8 |x| for
/// -87 < x < 0; smaller x underflow to 0.
__device__ __forceinline__ float sigmoid(float x) {
  constexpr float kLog2E = 1.4426950408889634f;
  return approximate_reciprocal(1.0f + approximate_exp2(x * -kLog2E));
}

/// x * sigmoid(x), 5 instructions; relative error as sigmoid's. A large negative x gives -0: the exponential
/// is infinite, its reciprocal 0.
__device__ __forceinline__ float silu(float x) { return x * sigmoid(x); }

/// d silu / dx = s + x s (1 - s), s = sigmoid(x), 7 instructions; absolute error below 2e-6: 1 - s has that
/// of s, times x. From x = 17 on s is 1 and so is the result; at the other end s is 0.
__device__ __forceinline__ float silu_grad(float x) {
  const float s = sigmoid(x);
  return s * fmaf(x, 1.0f - s, 1.0f);
}

// The same for f32 tensors, which are asked for where digits matter more than time: expf and a correctly
// rounded division, about 30 instructions.

/// Relative error below 4e-7 for x > -87; smaller x underflow to 0.
__device__ __forceinline__ float precise_sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
/// As one division, so that a large negative x gives -0 rather than NaN.
__device__ __forceinline__ float precise_silu(float x) { return x / (1.0f + expf(-x)); }
/// Absolute error below 3e-7: both s and 1 - s come from exp(-|x|).
__device__ __forceinline__ float precise_silu_grad(float x) {
  const float e = expf(-fabsf(x)), larger = 1.0f / (1.0f + e), smaller = e * larger;
  return (x >= 0.0f ? larger : smaller) + x * larger * smaller;
}

/// Two neighbouring bf16 in a word, the first in the lower half: one instruction to pack, one each to unpack.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
#if defined(__CUDACC__)
  uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
#else
  return to_bf16(low).bits | uint32_t{to_bf16(high).bits} << 16;
#endif
}
__device__ __forceinline__ float low_bf16(uint32_t word) { return __uint_as_float(word << 16); }
__device__ __forceinline__ float high_bf16(uint32_t word) { return __uint_as_float(word & 0xffff0000u); }

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
  static_assert(std::is_same_v<T, float> || (std::is_same_v<T, bf16> && N % 2 == 0));
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
    if constexpr (std::is_same_v<T, bf16>) {
      uint32_t words[N / 2];
      memcpy(words, &raw, kBytes);
#pragma unroll
      for (int i = 0; i < N / 2; ++i) {
        f[2 * i] = low_bf16(words[i]);
        f[2 * i + 1] = high_bf16(words[i]);
      }
    } else {
      memcpy(f, &raw, kBytes);
    }
  }
  __device__ __forceinline__ static Vec from_float(const float (&f)[N]) {
    Vec v;
    if constexpr (std::is_same_v<T, bf16>) {
      uint32_t words[N / 2];
#pragma unroll
      for (int i = 0; i < N / 2; ++i) words[i] = pack_bf16(f[2 * i], f[2 * i + 1]);
      memcpy(&v.raw, words, kBytes);
    } else {
      memcpy(&v.raw, f, kBytes);
    }
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

/// N neighbouring elements as floats: one element, one vector, or several vectors of 16 bytes where N
/// elements are more than that (f32 beside 8 channels of bf16).
template <class T, int N>
__device__ __forceinline__ void load_lanes(const T* p, float (&f)[N]) {
  if constexpr (N == 1) {
    f[0] = to_float(*p);
  } else if constexpr (N > kVecLanes<T>) {
    constexpr int V = kVecLanes<T>;
#pragma unroll
    for (int k = 0; k < N; k += V) {
      float part[V];
      Vec<T, V>::load(p + k).to_float(part);
#pragma unroll
      for (int i = 0; i < V; ++i) f[k + i] = part[i];
    }
  } else {
    Vec<T, N>::load(p).to_float(f);
  }
}
template <class T, int N>
__device__ __forceinline__ void store_lanes(T* p, const float (&f)[N]) {
  if constexpr (N == 1)
    *p = from_float<T>(f[0]);
  else
    Vec<T, N>::from_float(f).store(p);
}
/// N neighbouring elements as they lie in memory: what waits for its turn takes few registers.
template <class T, int N>
struct RawLanes {
  std::conditional_t<N == 1, T, Vec<T, N == 1 ? 2 : N>> raw = {};
  __device__ __forceinline__ void load(const T* p) {
    if constexpr (N == 1) {
      raw = *p;
    } else {
      raw = Vec<T, N>::load(p);
    }
  }
  __device__ __forceinline__ void to_float(float (&f)[N]) const {
    if constexpr (N == 1) {
      f[0] = gm::to_float(raw);
    } else {
      raw.to_float(f);
    }
  }
};
/// Adds f to what p holds when `accumulate`, else stores f.
template <class T, int N>
__device__ __forceinline__ void put_lanes(T* p, float (&f)[N], bool accumulate) {
  if (accumulate) {
    float old[N];
    load_lanes<T, N>(p, old);
#pragma unroll
    for (int k = 0; k < N; ++k) f[k] += old[k];
  }
  store_lanes<T, N>(p, f);
}
/// The same where what p holds was loaded ahead.
template <class T, int N>
__device__ __forceinline__ void put_lanes(T* p, float (&f)[N], bool accumulate, const RawLanes<T, N>& held) {
  if (accumulate) {
    float old[N];
    held.to_float(old);
#pragma unroll
    for (int k = 0; k < N; ++k) f[k] += old[k];
  }
  store_lanes<T, N>(p, f);
}

/// Loads above stay there. Without it the compiler moves them down to their uses, behind branches, where each
/// waits for the one before.
__device__ __forceinline__ void loads_stay_above() {
#if defined(__CUDACC__)
  asm volatile("" ::: "memory");
#endif
}

/// use(i, held) for i = first, first + step, ... below end, in batches of R whose loads, load(i, held), are
/// all under way together: in a loop of single ones a load waits for the store or the use before it. In the
/// last batch places past the end are loaded as its first one and not used.
template <class Held, int R, class Index, class Load, class Use>
__device__ __forceinline__ void in_batches(Index first, Index step, Index end, Load load, Use use) {
  for (Index i = first; i < end; i += R * step) {
    Held held[R];
#pragma unroll
    for (int u = 0; u < R; ++u) load(i + u * step < end ? i + u * step : i, held[u]);
    loads_stay_above();
#pragma unroll
    for (int u = 0; u < R; ++u)
      if (i + u * step < end) use(i + u * step, held[u]);
  }
}

}  // namespace gm::GM_BACKEND_NS
