// Sum and first maximum over the channels of one pixel, for the CPU kernels.
#pragma once
#include <cmath>
#include <cstdint>

namespace gm::GM_CPU_NS {

struct ChannelPool {
  float sum, max;
  int32_t argmax;
};

/// value(k) for k in [0, channels), each once and in order. 16 lanes run side by side in registers and are
/// joined in order: the same bits on every instruction set.
template <class F>
ChannelPool pool_channels(int64_t channels, F value) {
  constexpr int kWide = 16;
  float sum[kWide] = {}, best[kWide];
  int32_t at[kWide] = {};
  for (float& b : best) b = -INFINITY;
  auto meet = [&](int64_t k, int lane) {
    const float v = value(k);
    const bool larger = v > best[lane];
    sum[lane] += v;
    best[lane] = larger ? v : best[lane];
    at[lane] = larger ? static_cast<int32_t>(k) : at[lane];
  };
  int64_t k = 0;
  for (; k + kWide <= channels; k += kWide)
    for (int lane = 0; lane < kWide; ++lane) meet(k + lane, lane);
  for (int lane = 0; k < channels; ++k, ++lane) meet(k, lane);
  ChannelPool r{sum[0], best[0], at[0]};
  for (int lane = 1; lane < kWide; ++lane) {
    r.sum += sum[lane];
    if (best[lane] > r.max || (best[lane] == r.max && at[lane] < r.argmax))
      r.max = best[lane], r.argmax = at[lane];
  }
  return r;
}

}  // namespace gm::GM_CPU_NS
