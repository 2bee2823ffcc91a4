// Copies from global to shared memory that run while the block computes (cp.async, sm_80 and later), 16 bytes
// each; on the test device they are done at once.
#pragma once
#include "kernels/common/math.cuh"
#include "kernels/common/simt.h"

namespace gm::GM_BACKEND_NS {

/// to = inside ? *from : 0. Both are multiples of 16 bytes; `from` is not read when it is outside, but must
/// be an address of global memory. `to` is valid after a wait for it and a barrier.
__device__ __forceinline__ void async_copy16(uint4* to, const void* from, bool inside) {
#if defined(__CUDACC__)
  const unsigned place = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(place), "l"(from), "r"(inside ? 16 : 0)
               : "memory");
#else
  *to = inside ? Vec<bf16, 8>::load(static_cast<const bf16*>(from)).raw : uint4{};
#endif
}
/// Ends a group of copies of this thread, which may be empty.
__device__ __forceinline__ void async_commit() {
#if defined(__CUDACC__)
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
/// Waits for all groups of this thread but the last kGroups.
template <int kGroups>
__device__ __forceinline__ void async_wait_but() {
#if defined(__CUDACC__)
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
#endif
}
/// Waits for all copies of this thread.
__device__ __forceinline__ void async_wait() {
#if defined(__CUDACC__)
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

}  // namespace gm::GM_BACKEND_NS
