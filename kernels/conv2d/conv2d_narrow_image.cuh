// How conv2d_narrow.cuh reads an image of less than 8 channels, a stem's input: not pixel by pixel, whose
// three values fill three eighths of a chunk, but for each output column the whole row of taps that it needs.
// 5x5 of three channels are 5 x 1 taps of 15 neighbouring values, two chunks each. Values that several
// columns need are read and held for each of them.
#pragma once
#include "kernels/common/math.cuh"
#include "kernels/conv2d/conv2d_narrow.h"

namespace gm::GM_BACKEND_NS {

/// 8 kUnits neighbouring values of an image, of which those in [low, high) are wanted and the others are
/// zero. They may lie across words; a word of which nothing is wanted is not read.
template <int kUnits>
struct NarrowValues {
  static constexpr int kWords = 4 * kUnits;
  unsigned read[kWords + 1];
  int low, high;
  bool across;

  __device__ __forceinline__ NarrowValues(const bf16* from, int first_wanted, int end_wanted)
      : low(first_wanted), high(end_wanted), across(reinterpret_cast<uint64_t>(from) % 4 != 0) {
    const bf16* const words = from - across;
    const int begin = low < high ? low + across : 2 * kWords + 2;
#pragma unroll
    for (int i = 0; i <= kWords; ++i)
      read[i] = 2 * i + 1 >= begin && 2 * i < high + across ? Vec<bf16, 2>::load(words + 2 * i).raw.x : 0u;
  }
  /// values: how many are wanted inside of the image, the same for all threads.
  __device__ __forceinline__ void store(uint4* to, int values) const {
    unsigned word[kWords];
#pragma unroll
    for (int i = 0; i < kWords; ++i) word[i] = across ? read[i] >> 16 | read[i + 1] << 16 : read[i];
    if (low == 0 && high >= values) {
#pragma unroll
      for (int i = 0; i < kWords; ++i)
        word[i] = 2 * i + 1 < values ? word[i] : 2 * i < values ? word[i] & 0xffffu : 0u;
    } else {
#pragma unroll
      for (int i = 0; i < kWords; ++i) {
        if (2 * i < low || 2 * i >= high) word[i] &= 0xffff0000u;
        if (2 * i + 1 < low || 2 * i + 1 >= high) word[i] &= 0xffffu;
      }
    }
#pragma unroll
    for (int u = 0; u < kUnits; ++u)
      to[u] = uint4{word[4 * u], word[4 * u + 1], word[4 * u + 2], word[4 * u + 3]};
  }
};

/// A tile's inputs of an image of less than 8 channels, the units from `unit` on: for each output column the
/// row of taps that it reads, which is not aligned and so not copied by the unit. The loads of kAtOnce rows
/// are under way before the first of them is stored.
template <int kUnits, int kAtOnce>
__device__ __forceinline__ void narrow_load_image(const NarrowConv& p, const bf16* image, int y0, int x0,
                                                  int unit, uint4* to) {
  const int shift = 3 + p.across, count = p.in_h << shift, end = p.w * p.thin_channels,
            values = min(8 * kUnits, p.c - 8 * unit);
  for (int begin = static_cast<int>(threadIdx.x); begin < count; begin += kAtOnce * kNarrowThreads) {
    auto values_of = [&](int k) {
      const int item = begin + k * kNarrowThreads, row = item >> shift, y = y0 + row,
                first = (x0 + (item - (row << shift)) * p.stride) * p.thin_channels + 8 * unit;
      const bool inside = item < count && y >= 0 && y < p.h;
      return NarrowValues<kUnits>(image + y * end + first, max(0, -first),
                                  inside ? min(values, end - first) : 0);
    };
    auto store = [&](int k, const NarrowValues<kUnits>& v) {
      const int item = begin + k * kNarrowThreads, row = item >> shift;
      if (item < count) v.store(to + row * p.row_units + (item - (row << shift)) * p.pitch + unit, values);
    };
    const NarrowValues<kUnits> one = values_of(0);
    if constexpr (kAtOnce == 2) {
      const NarrowValues<kUnits> two = values_of(1);
      store(0, one);
      store(1, two);
    } else {
      store(0, one);
    }
  }
}

}  // namespace gm::GM_BACKEND_NS
