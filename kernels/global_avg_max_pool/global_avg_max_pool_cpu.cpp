#include "kernels/global_avg_max_pool/global_avg_max_pool.h"

#include <algorithm>

#include "kernels/common/ceil_div.h"
#include "kernels/common/dispatch.h"
#include "kernels/common/op.h"
#include "kernels/common/parallel.h"

namespace gm::GM_CPU_NS {

namespace {

// As in global_pool: a task is one image times up to kBlock channels, whose sums and peaks stay in the
// first-level cache while the pixels stream by, in order, whatever the number of threads.
constexpr int64_t kBlock = 256;

template <class T>
void pool_block(const T* x, int64_t hw, int64_t stride, int count, float* avg, float* max, int32_t* argmax) {
  float sum[kBlock], best[kBlock];
  int32_t at[kBlock] = {};
  for (int k = 0; k < count; ++k) sum[k] = best[k] = to_float(x[k]);
  for (int64_t p = 1; p < hw; ++p)
    for (int k = 0; k < count; ++k) {
      const float v = to_float(x[p * stride + k]);
      const bool larger = v > best[k];
      sum[k] += v;
      best[k] = larger ? v : best[k];
      at[k] = larger ? static_cast<int32_t>(p) : at[k];
    }
  for (int k = 0; k < count; ++k) avg[k] = sum[k] / static_cast<float>(hw);
  std::copy_n(best, count, max);
  if (argmax) std::copy_n(at, count, argmax);
}

}  // namespace

void global_avg_max_pool_forward(const OpCall& c) {
  const Shape& s = c.in[0].shape();
  const int64_t hw = s[1] * s[2], channels = s[3], blocks = ceil_div(channels, kBlock);
  float *avg = c.out[0].as<float>(), *max = c.out[1].as<float>();
  int32_t* argmax = c.saved[0] ? c.saved[0].as<int32_t>() : nullptr;
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* x = c.in[0].as<T>();
    c.ctx.pool->run(s[0] * blocks, [&](int64_t task, int) {
      const int64_t n = task / blocks, first = task % blocks * kBlock, out = n * channels + first;
      const int count = static_cast<int>(std::min(kBlock, channels - first));
      pool_block(x + n * hw * channels + first, hw, channels, count, avg + out, max + out,
                 argmax ? argmax + out : nullptr);
    });
  });
}

void global_avg_max_pool_backward(const OpCall& c) {
  if (!c.din[0]) return;
  const Shape& s = c.din[0].view.shape();
  const int64_t hw = s[1] * s[2], channels = s[3];
  const bool accumulate = c.din[0].mode == GradMode::accumulate;
  const float* davg = c.dout[0].as<float>();
  const float* dmax = c.dout[1].as<float>();
  const int32_t* argmax = dmax ? c.saved[0].as<int32_t>() : nullptr;
  const float share = 1.f / static_cast<float>(hw);
  float_switch(c.din[0].view.dtype(), [&](auto zero) {
    using T = decltype(zero);
    T* dx = c.din[0].view.as<T>();
    c.ctx.pool->ranges(s[0] * hw, std::max<int64_t>(1, 16384 / channels),
                       [&](int64_t begin, int64_t end, int) {
                         for (int64_t q = begin; q < end; ++q) {
                           const int64_t row = q / hw * channels;
                           const int32_t p = static_cast<int32_t>(q % hw);
                           T* d = dx + q * channels;
                           for (int64_t k = 0; k < channels; ++k) {
                             float g = davg ? davg[row + k] * share : 0.f;
                             if (dmax) g += argmax[row + k] == p ? dmax[row + k] : 0.f;
                             d[k] = from_float<T>(accumulate ? to_float(d[k]) + g : g);
                           }
                         }
                       });
  });
}

}  // namespace gm::GM_CPU_NS
