// What every .cu and .cuh includes, and nothing else does. One kernel text, two compilers:
//   nvcc -> the GPU; launchers live in gm::cuda
//   g++  -> fibers on the CPU, for tests; launchers live in gm::simt_dev
//
// Kernels are ordinary CUDA (__global__, threadIdx, __syncthreads, __shfl_xor_sync, atomicAdd ...; the words
// supported are the using-declarations at the end of simt_host.h, to be added to), except for three macros:
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
// The first statement of a kernel is await_launch_before(), for all threads of all blocks; only GM_SHARED and
// GM_DYN_SHARED may stand above it. A test enforces it (house_kernels_test.cpp); the reason is at launch()
// below.
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

#include "kernels/common/card_limits.h"
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

/// Waits until the kernels launched before on this stream have ended and what they wrote can be read. Until
/// then no access to global memory. Nothing where launches do not overlap (see launch()).
__device__ __forceinline__ void await_launch_before() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// Whether kernels may be launched before the one ahead has ended: their code then holds the wait above. It
/// is the code that counts and not the card: sm_90 also runs what was compiled for compute_80. One answer
/// does for all kernels, which are compiled for the same architectures.
inline bool launches_overlap(const char* name, const char* file, int line, const void* kernel) {
  thread_local int asked = -1;
  thread_local bool overlap = false;
  int device = 0;
  check_launch(cudaGetDevice(&device), name, file, line);
  if (device == asked) return overlap;
  cudaFuncAttributes code{};
  check_launch(cudaFuncGetAttributes(&code, kernel), name, file, line);
  overlap = code.ptxVersion >= 90;
  asked = device;
  return overlap;
}

/// More than 48 KB of shared memory, static arrays included, must be asked for kernel by kernel. Only ever
/// raised: a captured graph may hold a launch of the same kernel that needs more.
inline void ask_for_shared(const char* name, const char* file, int line, const void* kernel, size_t dynamic) {
  if (dynamic <= kUnaskedShared) return;
  cudaFuncAttributes now{};
  check_launch(cudaFuncGetAttributes(&now, kernel), name, file, line);
  const int wanted = static_cast<int>(dynamic);
  if (now.maxDynamicSharedSizeBytes < wanted)
    check_launch(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, wanted), name,
                 file, line);
}

/// Arguments convert implicitly to the kernel's parameter types, as in an ordinary call.
/// Programmatic dependent launch: from sm_90 on a kernel is set up while the last blocks of the one before
/// drain, and waits in await_launch_before(). As every block waits before it does or skips anything, a
/// kernel's end implies the end of all before it. Only the order of neighbouring kernels changes: copies,
/// fills and events of other streams order launches as ever. On an H200 inference of one image gains 5 %
/// (effg3, 0.224 to 0.212 ms), long steps nothing, and nothing more where each kernel lets the next one be
/// set up before its own end (griddepcontrol.launch_dependents), which therefore none does.
template <class... P>
void launch(const char* name, const char* file, int line, void (*kernel)(P...), dim3 grid, dim3 block,
            size_t smem_bytes, void* stream, std::type_identity_t<P>... args) {
  static_assert((std::is_trivially_copyable_v<P> && ...), "kernel parameters are copied as bytes");
  const void* const code = reinterpret_cast<const void*>(kernel);
  ask_for_shared(name, file, line, code, smem_bytes);
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = smem_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = &overlap;
  config.numAttrs = launches_overlap(name, file, line, code) ? 1 : 0;
  void* parameters[] = {&args..., nullptr};  // of exactly the kernel's types; never empty
  const cudaError_t status = cudaLaunchKernelExC(&config, code, parameters);
  if (status != cudaSuccess) (void)cudaGetLastError();  // reported here, it is nobody else's
  check_launch(status, name, file, line);
}

/// Blocks of `kernel`, of so many threads and bytes of dynamic shared memory, that a multiprocessor of the
/// current device holds at once: 1 or more.
template <class... P>
int resident_blocks(void (*kernel)(P...), int threads, size_t smem_bytes = 0) {
  constexpr const char* kName = "(its resident blocks)";
  int blocks = 0;
  ask_for_shared(kName, __FILE__, __LINE__, reinterpret_cast<const void*>(kernel), smem_bytes);
  check_launch(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, smem_bytes), kName,
               __FILE__, __LINE__);
  return blocks > 0 ? blocks : 1;
}

}  // namespace gm::cuda

#define GM_LAUNCH(kernel, grid, block, smem_bytes, stream, ...)                    \
  ::gm::cuda::launch(#kernel, __FILE__, __LINE__, kernel, grid, block, smem_bytes, \
                     stream __VA_OPT__(, ) __VA_ARGS__)

#else

#include "kernels/common/simt_host.h"

#define GM_BACKEND_NS simt_dev

namespace gm::simt_dev {
inline void await_launch_before() {}  // here a launch ends before the next begins
template <class... P>
int resident_blocks(void (*)(P...), int, size_t = 0) {
  return 2;  // here blocks run one after the other: some number above one
}
}  // namespace gm::simt_dev

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
