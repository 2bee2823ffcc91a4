// The host half of simt.h: CUDA's words for g++, executed by simt_host.cpp. Needs no CUDA header.
// Everything is declared in gm::simt and brought into the global namespace at the end, so that a binary may
// also hold translation units that know the real dim3.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <source_location>
#include <string>
#include <type_traits>

#include "kernels/common/error.h"
#include "kernels/common/simt_control.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __constant__ __attribute__((unused))  // not const: const is the kernel author's word to add
#define __align__(n) alignas(n)

// Atomics and the bookkeeping of shared arrays are no accesses of the kernel to the race checker.
#if defined(__SANITIZE_THREAD__)
#define GM_SIMT_UNCHECKED __attribute__((noinline, no_sanitize("thread")))
#else
#define GM_SIMT_UNCHECKED
#endif

namespace gm::simt {

// ---- types. may_alias: kernels read float or bf16 arrays through uint4 and friends, as CUDA allows.
struct [[gnu::may_alias]] alignas(4) uint1 {
  unsigned x;
};
struct [[gnu::may_alias]] alignas(8) uint2 {
  unsigned x, y;
};
struct [[gnu::may_alias]] alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }

extern constinit thread_local uint3 threadIdx, blockIdx;
extern constinit thread_local dim3 blockDim, gridDim;

// ---- collectives. Each call site is remembered: threads that meet must meet at the same place in the text.
using Site = std::source_location;
enum class BlockOp : uint8_t { sync, sync_or, sync_and, sync_count };
enum class WarpOp : uint8_t { sync, shfl, ballot };

int block_collective(BlockOp op, bool predicate, const Site& at);
/// shfl: the value deposited by lane `source`. ballot: the bits of the lanes with value != 0.
uint64_t warp_collective(WarpOp op, unsigned mask, uint64_t value, int source, const Site& at);
int lane_in_warp();
[[noreturn]] void kernel_fault(const std::string& what, const Site& at);

inline void __syncthreads(Site at = Site::current()) { block_collective(BlockOp::sync, false, at); }
inline int __syncthreads_or(int p, Site at = Site::current()) {
  return block_collective(BlockOp::sync_or, p != 0, at);
}
inline int __syncthreads_and(int p, Site at = Site::current()) {
  return block_collective(BlockOp::sync_and, p != 0, at);
}
inline int __syncthreads_count(int p, Site at = Site::current()) {
  return block_collective(BlockOp::sync_count, p != 0, at);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, Site at = Site::current()) {
  warp_collective(WarpOp::sync, mask, 0, 0, at);
}
inline unsigned __ballot_sync(unsigned mask, int p, Site at = Site::current()) {
  return static_cast<unsigned>(warp_collective(WarpOp::ballot, mask, p != 0, 0, at));
}

template <class T>
T exchange(unsigned mask, T value, int source, const Site& at) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "CUDA shuffles 4 or 8 bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = warp_collective(WarpOp::shfl, mask, bits, source, at);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}
inline int check_width(int width, const Site& at) {
  if (width < 1 || width > 32 || (width & (width - 1)))
    kernel_fault("shuffle width " + std::to_string(width) + " is not a power of two up to 32", at);
  return width;
}
// A lane whose source lies outside its segment of `width` lanes gets its own value back.
template <class T>
T __shfl_sync(unsigned mask, T v, int source, int width = 32, Site at = Site::current()) {
  const int base = lane_in_warp() & ~(check_width(width, at) - 1);
  return exchange(mask, v, base + (source & (width - 1)), at);
}
template <class T>
T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32, Site at = Site::current()) {
  const int lane = lane_in_warp(), within = lane & (check_width(width, at) - 1);
  return exchange(mask, v, static_cast<unsigned>(within) >= delta ? lane - static_cast<int>(delta) : lane,
                  at);
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32, Site at = Site::current()) {
  const int lane = lane_in_warp(), above = width - 1 - (lane & (check_width(width, at) - 1));
  return exchange(mask, v, static_cast<unsigned>(above) >= delta ? lane + static_cast<int>(delta) : lane, at);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int lane_mask, int width = 32, Site at = Site::current()) {
  const int lane = lane_in_warp(), end = (lane & ~(check_width(width, at) - 1)) + width;
  const int source = lane ^ (lane_mask & 31);  // earlier segments may be read, later ones may not
  return exchange(mask, v, source < end ? source : lane, at);
}

// ---- atomics. One OS thread runs the whole grid, so a plain read-modify-write is indivisible.
template <class T, class F>
GM_SIMT_UNCHECKED T read_modify_write(T* p, F update) {
  const T old = *p;
  *p = update(old);
  return old;
}
template <class T>
concept AtomicAddable = std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, float> ||
    std::is_same_v<T, double> || std::is_same_v<T, unsigned long long>;
template <AtomicAddable T>
T atomicAdd(T* p, std::type_identity_t<T> v) {
  return read_modify_write(p, [v](T old) {
    if constexpr (std::is_same_v<T, int>)
      return static_cast<int>(static_cast<unsigned>(old) +
                              static_cast<unsigned>(v));  // wraps, as the hardware
    else
      return old + v;
  });
}
template <std::integral T>
T atomicMax(T* p, std::type_identity_t<T> v) {
  return read_modify_write(p, [v](T old) { return std::max(old, v); });
}
/// Counts 0, 1, ... limit and wraps to 0.
inline unsigned atomicInc(unsigned* p, unsigned limit) {
  return read_modify_write(p, [limit](unsigned old) { return old >= limit ? 0u : old + 1u; });
}
inline void __threadfence() {}

// ---- arithmetic
template <class T>
T __ldg(const T* p) {
  return *p;
}
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
// min and max accept mixed types like CUDA's: the usual arithmetic conversions, NaN-dropping for floats.
template <class A, class B>
requires(std::is_arithmetic_v<A>&& std::is_arithmetic_v<B>) auto min(A a, B b) {
  using T = decltype(a + b);
  if constexpr (std::is_floating_point_v<T>)
    return std::fmin(static_cast<T>(a), static_cast<T>(b));
  else
    return std::min(static_cast<T>(a), static_cast<T>(b));
}
template <class A, class B>
requires(std::is_arithmetic_v<A>&& std::is_arithmetic_v<B>) auto max(A a, B b) {
  using T = decltype(a + b);
  if constexpr (std::is_floating_point_v<T>)
    return std::fmax(static_cast<T>(a), static_cast<T>(b));
  else
    return std::max(static_cast<T>(a), static_cast<T>(b));
}

// ---- shared memory: filled with 0xFF (a NaN, or -1) for every block, so nothing is left over from the last
// one
struct SharedArray {
  uint64_t block = 0;
  void* data = nullptr;
};
extern constinit thread_local uint64_t block_serial;  // counts blocks from 1
void* allocate_shared(const char* name, size_t bytes, size_t alignment);
GM_SIMT_UNCHECKED inline void* shared_static(SharedArray& slot, const char* name, size_t bytes,
                                             size_t alignment) {
  if (slot.block != block_serial) {
    slot.data = allocate_shared(name, bytes, alignment);
    slot.block = block_serial;
  }
  return slot.data;
}
void* shared_dynamic();

// ---- launch
struct LaunchSite {
  const char* kernel;
  const char* file;
  int line;
};
void run_grid(const LaunchSite& site, dim3 grid, dim3 block, size_t dynamic_bytes, void (*body)(const void*),
              const void* context);

/// Arguments convert implicitly to the kernel's parameter types, as in an ordinary call.
template <class... P>
void launch(const char* name, const char* file, int line, void (*kernel)(P...), dim3 grid, dim3 block,
            size_t smem_bytes, void* /*stream*/, std::type_identity_t<P>... args) {
  static_assert((std::is_trivially_copyable_v<P> && ...), "kernel parameters are copied as bytes");
  static_assert((sizeof(P) + ... + 0) <= 4096, "CUDA passes at most 4 KiB of kernel parameters");
  const auto call = [&] { kernel(args...); };
  using Call = decltype(call);
  run_grid(
      {name, file, line}, grid, block, smem_bytes, [](const void* c) { (*static_cast<Call*>(c))(); }, &call);
}

}  // namespace gm::simt

using gm::simt::__ballot_sync, gm::simt::__uint_as_float;
using gm::simt::__shfl_sync, gm::simt::__shfl_up_sync, gm::simt::__shfl_down_sync, gm::simt::__shfl_xor_sync;
using gm::simt::__syncthreads, gm::simt::__syncthreads_or, gm::simt::__syncthreads_and,
    gm::simt::__syncthreads_count, gm::simt::__syncwarp;
using gm::simt::__threadfence, gm::simt::__ldg, gm::simt::make_uint2;
using gm::simt::atomicAdd, gm::simt::atomicMax, gm::simt::atomicInc;
using gm::simt::min, gm::simt::max;
using gm::simt::threadIdx, gm::simt::blockIdx, gm::simt::blockDim, gm::simt::gridDim;
using gm::simt::uint1, gm::simt::uint2, gm::simt::uint4, gm::simt::uint3, gm::simt::dim3;
