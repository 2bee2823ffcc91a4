// What every .cu and .cuh includes, and nothing else does. One kernel text, two compilers:
//   nvcc -> the GPU; launchers live in gm::cuda
//   g++  -> fibers on the CPU, for tests; launchers live in gm::simt_dev
//
// Kernels are ordinary CUDA (__global__, threadIdx, __syncthreads, __shfl_xor_sync, atomicAdd ...; the words
// supported are the using-declarations at the end of simt_host.h), except for three macros:
//
//   GM_SHARED(T, name, dims...)   static shared memory:
//                                 GM_SHARED(float, tile, [8][33]);  GM_SHARED(int, flag);
//   GM_DYN_SHARED(T, name)        dynamic shared memory as a T*, aligned to 16 bytes
//   GM_LAUNCH(kernel, grid, block, smem_bytes, stream, args...)
//                                 throws gm::Error when the launch is refused; a kernel with
//                                 commas in its template arguments goes in parentheses
//
// Kernels and launchers live in namespace gm::GM_BACKEND_NS; a launcher takes the stream as void*.
// The host build is a one-line <op>.simt.cpp that includes the .cu, compiled with -Wno-unknown-pragmas.
//
// A barrier must be reached by all threads of the block, at the same place in the text, also by those
// with nothing to do: no early return before it. Blocks that use full-mask warp operations are a multiple
// of 32 threads. Tensor cores, cp.async, PTX, cub and cooperative groups stay behind #ifdef __CUDACC__
// with a plain twin beside.
#pragma once

#if defined(__CUDACC__)

#include <cuda_runtime.h>

#include <string>
#include <type_traits>

#include "kernels/common/error.h"

#define GM_BACKEND_NS cuda

#define GM_SHARED(T, name, ...) __shared__ T name __VA_ARGS__
#define GM_DYN_SHARED(T, name)                                             \
  extern __shared__ __align__(16) unsigned char gm_dynamic_shared_bytes[]; \
  T* const name = reinterpret_cast<T*>(gm_dynamic_shared_bytes)

namespace gm::cuda {

inline void check_launch(cudaError_t status, const char* kernel, const char* file, int line) {
  if (status != cudaSuccess)
    fail(std::string("kernel ") + kernel + " (" + file + ":" + std::to_string(line) +
         "): " + cudaGetErrorString(status));
}

/// Arguments convert implicitly to the kernel's parameter types, as in an ordinary call.
template <class... P>
void launch(const char* name, const char* file, int line, void (*kernel)(P...), dim3 grid, dim3 block,
            size_t smem_bytes, void* stream, std::type_identity_t<P>... args) {
  static_assert((std::is_trivially_copyable_v<P> && ...), "kernel parameters are copied as bytes");
  // More than 48 KB, static arrays included, must be asked for kernel by kernel. Kernels with
  // dynamic memory have less than 16 KB of static.
  constexpr size_t kDefaultLimit = 32 * 1024;
  if (smem_bytes > kDefaultLimit)
    check_launch(
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(smem_bytes)),
        name, file, line);
  kernel<<<grid, block, smem_bytes, static_cast<cudaStream_t>(stream)>>>(args...);
  check_launch(cudaGetLastError(), name, file, line);
}

}  // namespace gm::cuda

#define GM_LAUNCH(kernel, grid, block, smem_bytes, stream, ...)                    \
  ::gm::cuda::launch(#kernel, __FILE__, __LINE__, kernel, grid, block, smem_bytes, \
                     stream __VA_OPT__(, ) __VA_ARGS__)

#else

#include "kernels/common/simt_host.h"

#define GM_BACKEND_NS simt_dev

#define GM_SHARED(T, name, ...)                                             \
  using name##_shared_type = T __VA_ARGS__;                                 \
  static constinit thread_local ::gm::simt::SharedArray name##_shared_slot; \
  auto& name = *static_cast<name##_shared_type*>(::gm::simt::shared_static( \
      name##_shared_slot, #name, sizeof(name##_shared_type), alignof(name##_shared_type)))
#define GM_DYN_SHARED(T, name) T* const name = static_cast<T*>(::gm::simt::shared_dynamic())

#define GM_LAUNCH(kernel, grid, block, smem_bytes, stream, ...)                    \
  ::gm::simt::launch(#kernel, __FILE__, __LINE__, kernel, grid, block, smem_bytes, \
                     stream __VA_OPT__(, ) __VA_ARGS__)

#endif
