#include "kernels/channel_scale_pool/channel_scale_pool.h"

#include <algorithm>

#include "kernels/common/ceil_div.h"
#include "kernels/common/dispatch.h"
#include "kernels/common/op.h"
#include "kernels/common/parallel.h"
#include "kernels/spatial_pool/channel_pool_cpu.h"

namespace gm::GM_CPU_NS {

void channel_scale_pool_forward(const OpCall& c) {
  const Shape& d = c.in[0].shape();
  const int64_t hw = d[1] * d[2], channels = d[3];
  const int average = average_place(c.attrs);
  const float* s = c.in[1].as<float>();
  float* m = c.out[1].as<float>();
  int32_t* argmax = c.saved[0] ? c.saved[0].as<int32_t>() : nullptr;
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* x = c.in[0].as<T>();
    T* y = c.out[0].as<T>();
    c.ctx.pool->ranges(d[0] * hw, std::max<int64_t>(1, 16384 / channels),
                       [&](int64_t begin, int64_t end, int) {
                         for (int64_t p = begin; p < end; ++p) {
                           const float* f = s + p / hw * channels;
                           const T* from = x + p * channels;
                           T* to = y + p * channels;
                           const ChannelPool r = pool_channels(channels, [&](int64_t k) {
                             const float v = to_float(from[k]) * f[k];
                             to[k] = from_float<T>(v);
                             return v;
                           });
                           m[2 * p + average] = r.sum / static_cast<float>(channels);
                           m[2 * p + 1 - average] = r.max;
                           if (argmax) argmax[p] = r.argmax;
                         }
                       });
  });
}

namespace {

constexpr int64_t kBlock = 256;  // channels of a task; their sums stay in the first-level cache

struct PoolGradient {
  const float* dm;  // of the first pixel; null: none
  const int32_t* argmax;
  int average;
  int64_t channels;
};

// One image, channels [first, first + count): dx where wanted, and the sums of g * x in pixel order. All
// tensor pointers are at channel `first`; dy may be null, and dx may be dy.
template <class T>
void backward_block(const T* x, const T* dy, const PoolGradient& pool, const float* s, T* dx, bool accumulate,
                    int64_t hw, int64_t first, int count, float* sum) {
  std::fill_n(sum, count, 0.f);
  for (int64_t p = 0; p < hw; ++p) {
    const int64_t row = p * pool.channels;
    float share = 0, top = 0;
    int32_t at = -1;
    if (pool.dm) {
      share = pool.dm[2 * p + pool.average] / static_cast<float>(pool.channels);
      top = pool.dm[2 * p + 1 - pool.average];
      at = static_cast<int32_t>(pool.argmax[p] - first);
    }
    float g[kBlock];
    for (int k = 0; k < count; ++k) g[k] = share + (k == at ? top : 0.f);
    if (dy)
      for (int k = 0; k < count; ++k) g[k] += to_float(dy[row + k]);
    for (int k = 0; k < count; ++k) sum[k] += g[k] * to_float(x[row + k]);
    if (!dx) continue;
    T* d = dx + row;
    if (accumulate)
      for (int k = 0; k < count; ++k) d[k] = from_float<T>(to_float(d[k]) + g[k] * s[k]);
    else
      for (int k = 0; k < count; ++k) d[k] = from_float<T>(g[k] * s[k]);
  }
}

}  // namespace

void channel_scale_pool_backward(const OpCall& c) {
  const GradView &gx = c.din[0], &gs = c.din[1];
  if (!gx && !gs) return;
  const Shape& d = c.in[0].shape();
  const int64_t hw = d[1] * d[2], channels = d[3], blocks = ceil_div(channels, kBlock);
  const float* s = c.in[1].as<float>();
  const float* dm = c.dout[1].as<float>();
  const int32_t* argmax = dm ? c.saved[0].as<int32_t>() : nullptr;
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T *x = c.in[0].as<T>(), *dy = c.dout[0].as<T>();
    T* dx = gx ? gx.view.as<T>() : nullptr;
    float* ds = gs ? gs.view.as<float>() : nullptr;
    c.ctx.pool->run(d[0] * blocks, [&](int64_t task, int) {
      const int64_t n = task / blocks, first = task % blocks * kBlock, at = n * hw * channels + first;
      const int count = static_cast<int>(std::min(kBlock, channels - first));
      const PoolGradient pool{dm ? dm + 2 * n * hw : nullptr, dm ? argmax + n * hw : nullptr,
                              average_place(c.attrs), channels};
      float sum[kBlock];
      backward_block(x + at, dy ? dy + at : nullptr, pool, s + n * channels + first, dx ? dx + at : nullptr,
                     gx.mode == GradMode::accumulate, hw, first, count, sum);
      if (!ds) return;
      float* to = ds + n * channels + first;
      for (int k = 0; k < count; ++k) to[k] = gs.mode == GradMode::accumulate ? to[k] + sum[k] : sum[k];
    });
  });
}

}  // namespace gm::GM_CPU_NS
