#include "tests/simt_device_kernels.h"

#include "kernels/common/math.cuh"
#include "kernels/common/reduce.cuh"
#include "kernels/common/simt.h"

namespace gm::GM_BACKEND_NS {
namespace {

constexpr unsigned kFull = 0xffffffffu;
__constant__ const int kStep[2] = {1, 2};

dim3 to_dim3(Grid3 g) { return dim3(g.x, g.y, g.z); }

// ------------------------------------------------------------------------------------------------ correct

template <class T, int kThreads>
__global__ void __launch_bounds__(kThreads)
    row_sum_kernel(const T* __restrict__ x, float* __restrict__ y, int cols) {
  await_launch_before();
  GM_SHARED(float, scratch, [32]);
  float sum = 0.0f;
  for (int i = threadIdx.x; i < cols; i += kThreads) sum += to_float(x[int64_t{blockIdx.x} * cols + i]);
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) y[blockIdx.x] = sum;
}
void row_sum(const float* x, float* y, int rows, int cols, void* stream) {
  GM_LAUNCH((row_sum_kernel<float, 256>), rows, 256, 0, stream, x, y, cols);
}

__global__ void transpose_kernel(const float* __restrict__ x, float* __restrict__ y, int rows, int cols) {
  await_launch_before();
  GM_SHARED(float, tile, [32][33]);
  const int c = blockIdx.x * 32 + threadIdx.x, r0 = blockIdx.y * 32;
  for (int k = threadIdx.y; k < 32; k += blockDim.y)
    if (r0 + k < rows && c < cols) tile[k][threadIdx.x] = x[int64_t{r0 + k} * cols + c];
  __syncthreads();
  const int r = r0 + threadIdx.x, c0 = blockIdx.x * 32;
  for (int k = threadIdx.y; k < 32; k += blockDim.y)
    if (c0 + k < cols && r < rows) y[int64_t{c0 + k} * rows + r] = tile[threadIdx.x][k];
}
void transpose(const float* x, float* y, int rows, int cols, void* stream) {
  GM_LAUNCH(transpose_kernel, dim3((cols + 31) / 32, (rows + 31) / 32), dim3(32, 8), 0, stream, x, y, rows,
            cols);
}

__global__ void reverse_dynamic_kernel(const float* x, float* y, int n) {
  await_launch_before();
  GM_DYN_SHARED(float, s);
  for (int i = threadIdx.x; i < n; i += blockDim.x) s[i] = __ldg(x + i);
  __syncthreads();
  for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = s[n - 1 - i];
}
void reverse_dynamic(const float* x, float* y, int n, void* stream) {
  GM_LAUNCH(reverse_dynamic_kernel, 1, 64, n * sizeof(float), stream, x, y, n);
}

__global__ void histogram_kernel(const int* v, int n, int* counts, int bins, int* largest) {
  await_launch_before();
  GM_DYN_SHARED(int, local);
  GM_SHARED(int, top);
  for (int i = threadIdx.x; i < bins; i += blockDim.x) local[i] = 0;
  if (threadIdx.x == 0) top = INT32_MIN;
  __syncthreads();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    atomicAdd(&local[v[i] % bins], 1);
    atomicMax(&top, v[i]);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < bins; i += blockDim.x) atomicAdd(&counts[i], local[i]);
  if (threadIdx.x == 0) atomicMax(largest, top);
}
void histogram(const int* v, int n, int* counts, int bins, int* largest, void* stream) {
  GM_LAUNCH(histogram_kernel, 7, 96, bins * sizeof(int), stream, v, n, counts, bins, largest);
}

// No __restrict__ on partials: the last block reads what other blocks wrote.
__global__ void total_kernel(const float* x, int64_t n, float* partials, unsigned* ticket, float* total) {
  await_launch_before();
  GM_SHARED(float, scratch, [32]);
  float sum = 0.0f;
  for (int64_t i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) sum += x[i];
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
  if (!last_block_done(ticket, gridDim.x)) return;
  sum = 0.0f;
  for (unsigned i = threadIdx.x; i < gridDim.x; i += blockDim.x) sum += partials[i];
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) *total = sum;
}
void total(const float* x, int64_t n, float* partials, unsigned* ticket, float* out, int blocks,
           void* stream) {
  GM_LAUNCH(total_kernel, blocks, 64, 0, stream, x, n, partials, ticket, out);
}

__global__ void touch_kernel(float* y) {
  await_launch_before();
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  y[block * block_threads() + linear_thread()] += 1.0f;
}
void touch(float* y, Grid3 grid, Grid3 block, void* stream) {
  GM_LAUNCH(touch_kernel, to_dim3(grid), to_dim3(block), 0, stream, y);
}

template <bool kPrecise>
__global__ void silu_f32_kernel(const float* __restrict__ x, float* __restrict__ y, float* __restrict__ g,
                                int n) {
  await_launch_before();
  const int i = (blockIdx.x * blockDim.x + threadIdx.x) * 4;
  if (i >= n) return;
  float v[4], dv[4];
  Vec<float, 4>::load(x + i).to_float(v);
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    dv[k] = kPrecise ? precise_silu_grad(v[k]) : silu_grad(v[k]);
    v[k] = kPrecise ? precise_silu(v[k]) : silu(v[k]);
  }
  Vec<float, 4>::from_float(v).store(y + i);
  Vec<float, 4>::from_float(dv).store(g + i);
}
void silu_f32(const float* x, float* y, float* g, int n, void* stream) {
  GM_LAUNCH(silu_f32_kernel<true>, (n / 4 + 127) / 128, 128, 0, stream, x, y, g, n);
}
void fast_silu_f32(const float* x, float* y, float* g, int n, void* stream) {
  GM_LAUNCH(silu_f32_kernel<false>, (n / 4 + 127) / 128, 128, 0, stream, x, y, g, n);
}
__global__ void silu_bf16_kernel(const bf16* __restrict__ x, bf16* __restrict__ y, int n) {
  await_launch_before();
  constexpr int kLanes = kVecLanes<bf16>;
  const int i = (blockIdx.x * blockDim.x + threadIdx.x) * kLanes;
  if (i >= n) return;
  float v[kLanes];
  Vec<bf16, kLanes>::load(x + i).to_float(v);
#pragma unroll
  for (int k = 0; k < kLanes; ++k) v[k] = silu(v[k]);
  Vec<bf16, kLanes>::from_float(v).store(y + i);
}
void silu_bf16(const uint16_t* x, uint16_t* y, int n, void* stream) {
  GM_LAUNCH(silu_bf16_kernel, (n / 8 + 127) / 128, 128, 0, stream, reinterpret_cast<const bf16*>(x),
            reinterpret_cast<bf16*>(y), n);
}

__global__ void shuffles_kernel(int* out) {
  await_launch_before();
  const int lane = threadIdx.x, v = 100 + lane;
  out[lane] = __shfl_sync(kFull, v, lane * 3);
  out[32 + lane] = __shfl_up_sync(kFull, v, kStep[0]);
  out[64 + lane] = __shfl_down_sync(kFull, v, kStep[1], 8);
  out[96 + lane] = __shfl_xor_sync(kFull, v, 9);
  out[128 + lane] = __shfl_xor_sync(kFull, v, 16, 16);
  out[160 + lane] = static_cast<int>(__ballot_sync(kFull, lane & 1));
  if (lane < 16)
    out[192 + lane] = __shfl_xor_sync(0x0000ffffu, v, 1);
  else
    out[192 + lane] = __shfl_xor_sync(0xffff0000u, v, 2);
}
void shuffles(int* out, void* stream) { GM_LAUNCH(shuffles_kernel, 1, 32, 0, stream, out); }

__global__ void votes_kernel(int* out, int limit) {
  await_launch_before();
  const int p = static_cast<int>(threadIdx.x) < limit;
  const int any = __syncthreads_or(p), all = __syncthreads_and(p), count = __syncthreads_count(p);
  if (threadIdx.x == 95) {
    out[0] = any != 0;
    out[1] = all != 0;
    out[2] = count;
  }
}
void votes(int* out, int limit, void* stream) { GM_LAUNCH(votes_kernel, 1, 96, 0, stream, out, limit); }

__global__ void barriers_kernel(int* out, int steps) {
  await_launch_before();
  int sum = 0;
  for (int i = 0; i < steps; ++i) {
    sum += i;
    __syncthreads();
  }
  out[threadIdx.x] = sum;
}
void barriers(int* out, int steps, int threads, void* stream) {
  GM_LAUNCH(barriers_kernel, 1, threads, 0, stream, out, steps);
}
__global__ void warp_steps_kernel(float* out, int steps) {
  await_launch_before();
  float v = static_cast<float>(threadIdx.x);
  for (int i = 0; i < steps; ++i) v = __shfl_xor_sync(kFull, v, 1);
  out[threadIdx.x] = v;
}
void warp_steps(float* out, int steps, int threads, void* stream) {
  GM_LAUNCH(warp_steps_kernel, 1, threads, 0, stream, out, steps);
}

// -------------------------------------------------------------------------------------------------- wrong

__global__ void missing_barrier_kernel(const float* x, float* y) {
  await_launch_before();
  GM_SHARED(float, s, [64]);
  s[threadIdx.x] = x[threadIdx.x];
  y[threadIdx.x] = s[63 - threadIdx.x];
}
__global__ void missing_barrier_reuse_kernel(const float* x, float* y) {
  await_launch_before();
  GM_SHARED(float, s, [64]);
  s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = s[63 - threadIdx.x];
  s[threadIdx.x] = -1.0f;
}
template <bool kSync>
__global__ void swap_in_warp_kernel(const float* x, float* y) {
  await_launch_before();
  GM_SHARED(float, s, [64]);
  s[threadIdx.x] = x[threadIdx.x];
  if (kSync) __syncwarp();
  y[threadIdx.x] = s[threadIdx.x ^ 1];
}
__global__ void neighbours_write_kernel(const float* x, float* y) {
  await_launch_before();
  y[threadIdx.x] = x[threadIdx.x];
  y[threadIdx.x + 1] = x[threadIdx.x];
}
__global__ void divergent_barrier_kernel(float* y) {
  await_launch_before();
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
  y[threadIdx.x] = 1.0f;
}
__global__ void barrier_against_warp_kernel(float* y) {
  await_launch_before();
  if (threadIdx.x < 40)
    __syncthreads();
  else
    __syncwarp();
  y[threadIdx.x] = 1.0f;
}
__global__ void early_return_kernel(float* y) {
  await_launch_before();
  if (threadIdx.x >= 50) return;
  __syncthreads();
  y[threadIdx.x] = 1.0f;
}
__global__ void mask_without_self_kernel(float* y) {
  await_launch_before();
  y[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, 1.0f, 1);
}
__global__ void mask_names_returned_kernel(float* y) {
  await_launch_before();
  if (threadIdx.x % 32 < 4) return;
  __syncwarp(0xfffffff0u);
  y[threadIdx.x] = __shfl_xor_sync(kFull, 1.0f, 1);
}
__global__ void returns_while_awaited_kernel(float* y) {
  await_launch_before();
  if (threadIdx.x % 32 < 28) y[threadIdx.x] = __shfl_xor_sync(kFull, 1.0f, 1);
}
__global__ void masks_disagree_kernel(float* y) {
  await_launch_before();
  y[threadIdx.x] = __shfl_xor_sync(threadIdx.x % 32 < 16 ? kFull : 0xfffffff0u, 1.0f, 1);
}
__global__ void reads_unnamed_lane_kernel(float* y) {
  await_launch_before();
  if (threadIdx.x % 32 < 16) y[threadIdx.x] = __shfl_down_sync(0x0000ffffu, 1.0f, 8);
}
__global__ void two_sites_one_mask_kernel(float* y) {
  await_launch_before();
  if (threadIdx.x % 2)
    y[threadIdx.x] = __shfl_xor_sync(kFull, 1.0f, 1);
  else
    y[threadIdx.x] = __shfl_xor_sync(kFull, 2.0f, 1);
}
__global__ void partial_warp_kernel(float* y) {
  await_launch_before();
  y[threadIdx.x] = warp_sum(1.0f);
}
__global__ void uninitialised_shared_kernel(float* y) {
  await_launch_before();
  GM_SHARED(float, s, [64]);
  if (threadIdx.x < 63) s[threadIdx.x] = 1.0f;
  __syncthreads();
  y[threadIdx.x] = s[threadIdx.x];
}
__global__ void shared_overrun_kernel(float* y) {
  await_launch_before();
  GM_SHARED(float, s, [64]);
  s[threadIdx.x + 1] = 1.0f;
  __syncthreads();
  y[threadIdx.x] = s[threadIdx.x];
}
__global__ void dynamic_overrun_kernel(float* y) {
  await_launch_before();
  GM_DYN_SHARED(float, s);
  s[threadIdx.x + 1] = 1.0f;
  __syncthreads();
  y[threadIdx.x] = s[threadIdx.x];
}
__global__ void misaligned_vector_kernel(const float* x, float* y) {
  await_launch_before();
  if (threadIdx.x == 0) Vec<float, 4>::load(x + 1).store(y);
}
__global__ void idle_kernel() { await_launch_before(); }
__global__ void static_and_dynamic_kernel(float* y) {
  await_launch_before();
  GM_SHARED(float, s, [5120]);
  GM_DYN_SHARED(float, d);
  s[threadIdx.x] = d[threadIdx.x] = 1.0f;
  y[threadIdx.x] = s[threadIdx.x] + d[threadIdx.x];
}

template <void (*kKernel)(float*), int kThreads = 64, int kDynamicBytes = 0>
void once(float* y, void* stream) {
  GM_LAUNCH(kKernel, 1, kThreads, kDynamicBytes, stream, y);
}
template <void (*kKernel)(const float*, float*)>
void once2(const float* x, float* y, void* stream) {
  GM_LAUNCH(kKernel, 1, 64, 0, stream, x, y);
}
void idle(Grid3 grid, Grid3 block, size_t dynamic_bytes, void* stream) {
  GM_LAUNCH(idle_kernel, to_dim3(grid), to_dim3(block), dynamic_bytes, stream);
}
void static_and_dynamic(float* y, size_t dynamic_bytes, void* stream) {
  GM_LAUNCH(static_and_dynamic_kernel, 1, 64, dynamic_bytes, stream, y);
}

}  // namespace

const SimtTestKernels& simt_test_kernels() {
  static const SimtTestKernels kernels = {
      .row_sum = row_sum,
      .transpose = transpose,
      .reverse_dynamic = reverse_dynamic,
      .histogram = histogram,
      .total = total,
      .touch = touch,
      .silu_f32 = silu_f32,
      .fast_silu_f32 = fast_silu_f32,
      .silu_bf16 = silu_bf16,
      .shuffles = shuffles,
      .votes = votes,
      .barriers = barriers,
      .warp_steps = warp_steps,
      .missing_barrier = once2<missing_barrier_kernel>,
      .missing_barrier_reuse = once2<missing_barrier_reuse_kernel>,
      .missing_syncwarp = once2<swap_in_warp_kernel<false>>,
      .with_syncwarp = once2<swap_in_warp_kernel<true>>,
      .neighbours_write = once2<neighbours_write_kernel>,
      .divergent_barrier = once<divergent_barrier_kernel>,
      .barrier_against_warp = once<barrier_against_warp_kernel>,
      .early_return = once<early_return_kernel>,
      .mask_without_self = once<mask_without_self_kernel>,
      .mask_names_returned = once<mask_names_returned_kernel>,
      .returns_while_awaited = once<returns_while_awaited_kernel>,
      .masks_disagree = once<masks_disagree_kernel>,
      .reads_unnamed_lane = once<reads_unnamed_lane_kernel>,
      .two_sites_one_mask = once<two_sites_one_mask_kernel>,
      .partial_warp = once<partial_warp_kernel, 48>,
      .uninitialised_shared = once<uninitialised_shared_kernel>,
      .shared_overrun = once<shared_overrun_kernel>,
      .dynamic_overrun = once<dynamic_overrun_kernel, 64, 64 * sizeof(float)>,
      .misaligned_vector = once2<misaligned_vector_kernel>,
      .idle = idle,
      .static_and_dynamic = static_and_dynamic,
  };
  return kernels;
}

}  // namespace gm::GM_BACKEND_NS
