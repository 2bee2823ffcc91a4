#include <algorithm>

#include "kernels/common/ceil_div.h"
#include "kernels/common/dispatch.h"
#include "kernels/common/op.h"
#include "kernels/common/parallel.h"
#include "kernels/global_pool/global_pool.h"

namespace gm::GM_CPU_NS {

namespace {

// A task is one image times up to kBlock channels, whose sums stay in registers or the first-level cache
// while the pixels stream by. A channel's sum runs over the pixels in order, whatever the number of threads.
constexpr int64_t kBlock = 256;

template <class T>
void average(const T* x, int64_t hw, int64_t stride, int count, float* y) {
  float sum[kBlock] = {};
  for (int64_t p = 0; p < hw; ++p)
    for (int k = 0; k < count; ++k) sum[k] += to_float(x[p * stride + k]);
  for (int k = 0; k < count; ++k) y[k] = sum[k] / static_cast<float>(hw);
}

template <class T>
void maximum(const T* x, int64_t hw, int64_t stride, int count, float* y, int32_t* argmax) {
  float best[kBlock];
  int32_t at[kBlock] = {};
  for (int k = 0; k < count; ++k) best[k] = to_float(x[k]);
  for (int64_t p = 1; p < hw; ++p)
    for (int k = 0; k < count; ++k) {
      const float v = to_float(x[p * stride + k]);
      const bool larger = v > best[k];
      best[k] = larger ? v : best[k];
      at[k] = larger ? static_cast<int32_t>(p) : at[k];
    }
  std::copy_n(best, count, y);
  if (argmax) std::copy_n(at, count, argmax);
}

}  // namespace

void global_pool_forward(const OpCall& c) {
  const Shape& s = c.in[0].shape();
  const int64_t hw = s[1] * s[2], channels = s[3], blocks = ceil_div(channels, kBlock);
  float* y = c.out[0].as<float>();
  const bool max = pool_kind(c.attrs) == PoolKind::maximum;
  int32_t* argmax = max && c.saved[0] ? c.saved[0].as<int32_t>() : nullptr;
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* x = c.in[0].as<T>();
    c.ctx.pool->run(s[0] * blocks, [&](int64_t task, int) {
      const int64_t n = task / blocks, first = task % blocks * kBlock, out = n * channels + first;
      const int count = static_cast<int>(std::min(kBlock, channels - first));
      const T* from = x + n * hw * channels + first;
      if (max)
        maximum(from, hw, channels, count, y + out, argmax ? argmax + out : nullptr);
      else
        average(from, hw, channels, count, y + out);
    });
  });
}

void global_pool_backward(const OpCall& c) {
  if (!c.din[0]) return;
  const Shape& s = c.din[0].view.shape();
  const int64_t hw = s[1] * s[2], channels = s[3];
  const bool max = pool_kind(c.attrs) == PoolKind::maximum;
  const bool accumulate = c.din[0].mode == GradMode::accumulate;
  const float* dy = c.dout[0].as<float>();
  float_switch(c.din[0].view.dtype(), [&](auto zero) {
    using T = decltype(zero);
    T* dx = c.din[0].view.as<T>();
    if (max && accumulate) {  // only the arg-max pixels change
      const int32_t* argmax = c.saved[0].as<int32_t>();
      for (int64_t i = 0; i < s[0] * channels; ++i) {
        T& d = dx[(i / channels * hw + argmax[i]) * channels + i % channels];
        d = from_float<T>(to_float(d) + dy[i]);
      }
      return;
    }
    const int32_t* argmax = max ? c.saved[0].as<int32_t>() : nullptr;
    const float share = 1.f / static_cast<float>(hw);
    c.ctx.pool->ranges(s[0] * hw, std::max<int64_t>(1, 16384 / channels),
                       [&](int64_t begin, int64_t end, int) {
                         for (int64_t q = begin; q < end; ++q) {
                           const int64_t n = q / hw;
                           const int32_t p = static_cast<int32_t>(q % hw);
                           const float* g = dy + n * channels;
                           T* d = dx + q * channels;
                           if (max) {
                             const int32_t* at = argmax + n * channels;
                             for (int64_t k = 0; k < channels; ++k)
                               d[k] = from_float<T>(at[k] == p ? g[k] : 0.f);
                           } else if (accumulate) {
                             for (int64_t k = 0; k < channels; ++k)
                               d[k] = from_float<T>(to_float(d[k]) + g[k] * share);
                           } else {
                             for (int64_t k = 0; k < channels; ++k) d[k] = from_float<T>(g[k] * share);
                           }
                         }
                       });
  });
}

}  // namespace gm::GM_CPU_NS
