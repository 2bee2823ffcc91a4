// Kernels that exercise the SIMT test device itself: correct ones, which must give the same bits under every
// schedule, and wrong ones, each of which must be reported. The same text runs on a GPU (the correct ones).
#pragma once
#include <cstddef>
#include <cstdint>

namespace gm {

struct Grid3 {
  unsigned x = 1, y = 1, z = 1;
};

struct SimtTestKernels {
  // ---- correct
  /// y[r] = sum over the row, one block of 256 per row, warp shuffles then shared memory. x: rows x cols.
  void (*row_sum)(const float* x, float* y, int rows, int cols, void* stream);
  /// y[c][r] = x[r][c] through a 32 x 33 tile. Any size.
  void (*transpose)(const float* x, float* y, int rows, int cols, void* stream);
  /// y[i] = x[n-1-i] through n floats of dynamic shared memory, one block of 64 threads, n up to 25344.
  void (*reverse_dynamic)(const float* x, float* y, int n, void* stream);
  /// counts[v % bins] += 1 for every v, largest = max(v): integer atomics, in shared memory first.
  void (*histogram)(const int* v, int n, int* counts, int bins, int* largest, void* stream);
  /// *total = sum of x by `blocks` blocks and last_block_done; partials: blocks floats; ticket starts at
  /// zero.
  void (*total)(const float* x, int64_t n, float* partials, unsigned* ticket, float* total, int blocks,
                void* stream);
  /// y[linear index of the thread in the grid] += 1, 3-D grid and block; y is counted, not zeroed.
  void (*touch)(float* y, Grid3 grid, Grid3 block, void* stream);
  /// y = silu(x) and g = silu'(x) by 16-byte vectors, f32 and (through bf16 bits) bf16; n a multiple of 8.
  void (*silu_f32)(const float* x, float* y, float* g, int n, void* stream);
  void (*fast_silu_f32)(const float* x, float* y, float* g, int n, void* stream);
  void (*silu_bf16)(const uint16_t* x, uint16_t* y, int n, void* stream);
  /// out[lane + 32 k], k = 0..6: shfl by index, up 1, down 2 (width 8), xor 9, xor 16 (width 16), ballot of
  /// odd lanes, then two disjoint half-warp masks at two call sites. One warp.
  void (*shuffles)(int* out, void* stream);
  /// out[0..2] = or, and, count of (thread < limit) over 96 threads.
  void (*votes)(int* out, int limit, void* stream);
  /// `steps` barriers by a block of `threads`: for timing.
  void (*barriers)(int* out, int steps, int threads, void* stream);
  void (*warp_steps)(float* out, int steps, int threads, void* stream);

  // ---- wrong. y: 64 floats unless said otherwise; one block of 64 threads.
  void (*missing_barrier)(const float* x, float* y, void* stream);  // y[i] = x[63-i] if there were a barrier
  void (*missing_barrier_reuse)(const float* x, float* y,
                                void* stream);  // the second use of a tile overtakes
  void (*missing_syncwarp)(const float* x, float* y,
                           void* stream);  // y[i] = x[i^1] by a tile, one warp at a time
  void (*with_syncwarp)(const float* x, float* y, void* stream);     // the same made right
  void (*neighbours_write)(const float* x, float* y, void* stream);  // threads i and i+1 both write y[i+1]
  void (*divergent_barrier)(float* y, void* stream);
  void (*barrier_against_warp)(float* y, void* stream);
  void (*early_return)(float* y, void* stream);  // 50 of 64 threads reach the barrier
  void (*mask_without_self)(float* y, void* stream);
  void (*mask_names_returned)(float* y, void* stream);
  void (*returns_while_awaited)(float* y, void* stream);
  void (*masks_disagree)(float* y, void* stream);
  void (*reads_unnamed_lane)(float* y, void* stream);
  void (*two_sites_one_mask)(float* y, void* stream);
  void (*partial_warp)(float* y, void* stream);  // block of 48, full mask
  void (*uninitialised_shared)(float* y, void* stream);
  void (*shared_overrun)(float* y, void* stream);
  void (*dynamic_overrun)(float* y, void* stream);
  void (*misaligned_vector)(const float* x, float* y, void* stream);
  void (*idle)(Grid3 grid, Grid3 block, size_t dynamic_bytes, void* stream);  // no shared memory of its own
  void (*static_and_dynamic)(float* y, size_t dynamic_bytes, void* stream);   // 8 KiB static beside it
};

namespace cuda {
const SimtTestKernels& simt_test_kernels();
}
namespace simt_dev {
const SimtTestKernels& simt_test_kernels();
}

}  // namespace gm
