#include <algorithm>

#include "kernels/channel_scale/channel_scale.h"
#include "kernels/common/ceil_div.h"
#include "kernels/common/dispatch.h"
#include "kernels/common/op.h"
#include "kernels/common/parallel.h"

namespace gm::GM_CPU_NS {

void channel_scale_forward(const OpCall& c) {
  const Shape& d = c.in[0].shape();
  const int64_t hw = d[1] * d[2], channels = d[3];
  const float* s = c.in[1].as<float>();
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* x = c.in[0].as<T>();
    T* y = c.out[0].as<T>();
    c.ctx.pool->ranges(d[0] * hw, std::max<int64_t>(1, 16384 / channels),
                       [&](int64_t begin, int64_t end, int) {
                         for (int64_t q = begin; q < end; ++q) {
                           const float* f = s + q / hw * channels;
                           const T* from = x + q * channels;
                           T* to = y + q * channels;
                           for (int64_t k = 0; k < channels; ++k)
                             to[k] = from_float<T>(to_float(from[k]) * f[k]);
                         }
                       });
  });
}

namespace {

constexpr int64_t kBlock = 256;  // channels of a task; their sums stay in the first-level cache

// One image, up to kBlock channels: dx where wanted, and the sums of dy * x in pixel order.
template <class T>
void backward_block(const T* x, const T* dy, const float* s, T* dx, bool accumulate, int64_t hw,
                    int64_t stride, int count, float* sum) {
  std::fill_n(sum, count, 0.f);
  for (int64_t p = 0; p < hw; ++p) {
    const T *a = x + p * stride, *g = dy + p * stride;
    for (int k = 0; k < count; ++k) sum[k] += to_float(g[k]) * to_float(a[k]);
    if (!dx) continue;
    T* d = dx + p * stride;
    if (accumulate)
      for (int k = 0; k < count; ++k) d[k] = from_float<T>(to_float(d[k]) + to_float(g[k]) * s[k]);
    else
      for (int k = 0; k < count; ++k) d[k] = from_float<T>(to_float(g[k]) * s[k]);
  }
}

}  // namespace

void channel_scale_backward(const OpCall& c) {
  const GradView &gx = c.din[0], &gs = c.din[1];
  if (!gx && !gs) return;
  const Shape& d = c.in[0].shape();
  const int64_t hw = d[1] * d[2], channels = d[3], blocks = ceil_div(channels, kBlock);
  const float* s = c.in[1].as<float>();
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T *x = c.in[0].as<T>(), *dy = c.dout[0].as<T>();
    T* dx = gx ? gx.view.as<T>() : nullptr;
    float* ds = gs ? gs.view.as<float>() : nullptr;
    c.ctx.pool->run(d[0] * blocks, [&](int64_t task, int) {
      const int64_t n = task / blocks, first = task % blocks * kBlock, at = n * hw * channels + first;
      const int count = static_cast<int>(std::min(kBlock, channels - first));
      float sum[kBlock];
      backward_block(x + at, dy + at, s + n * channels + first, dx ? dx + at : nullptr,
                     gx.mode == GradMode::accumulate, hw, channels, count, sum);
      if (!ds) return;
      float* to = ds + n * channels + first;
      for (int k = 0; k < count; ++k) to[k] = gs.mode == GradMode::accumulate ? to[k] + sum[k] : sum[k];
    });
  });
}

}  // namespace gm::GM_CPU_NS
