#include "kernels/spatial_pool/spatial_pool.h"

#include <algorithm>

#include "kernels/common/dispatch.h"
#include "kernels/common/op.h"
#include "kernels/common/parallel.h"
#include "kernels/spatial_pool/channel_pool_cpu.h"

namespace gm::GM_CPU_NS {

void spatial_pool_forward(const OpCall& c) {
  const int64_t channels = c.in[0].shape().channels(), pixels = c.in[0].shape().pixels();
  const int average = average_place(c.attrs);
  float* m = c.out[0].as<float>();
  int32_t* argmax = c.saved[0] ? c.saved[0].as<int32_t>() : nullptr;
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* x = c.in[0].as<T>();
    c.ctx.pool->ranges(pixels, std::max<int64_t>(1, 16384 / channels), [&](int64_t begin, int64_t end, int) {
      for (int64_t p = begin; p < end; ++p) {
        const T* row = x + p * channels;
        const ChannelPool r = pool_channels(channels, [&](int64_t k) { return to_float(row[k]); });
        m[2 * p + average] = r.sum / static_cast<float>(channels);
        m[2 * p + 1 - average] = r.max;
        if (argmax) argmax[p] = r.argmax;
      }
    });
  });
}

void spatial_pool_backward(const OpCall& c) {
  if (!c.din[0]) return;
  const int64_t channels = c.din[0].view.shape().channels(), pixels = c.din[0].view.shape().pixels();
  const int average = average_place(c.attrs);
  const bool accumulate = c.din[0].mode == GradMode::accumulate;
  const float* dm = c.dout[0].as<float>();
  const int32_t* argmax = c.saved[0].as<int32_t>();
  float_switch(c.din[0].view.dtype(), [&](auto zero) {
    using T = decltype(zero);
    T* dx = c.din[0].view.as<T>();
    c.ctx.pool->ranges(pixels, std::max<int64_t>(1, 16384 / channels), [&](int64_t begin, int64_t end, int) {
      for (int64_t p = begin; p < end; ++p) {
        const float share = dm[2 * p + average] / static_cast<float>(channels);
        const float top = dm[2 * p + 1 - average] + share;
        const int32_t at = argmax[p];
        T* d = dx + p * channels;
        for (int32_t k = 0; k < channels; ++k) {
          const float g = k == at ? top : share;
          d[k] = from_float<T>(accumulate ? to_float(d[k]) + g : g);
        }
      }
    });
  });
}

}  // namespace gm::GM_CPU_NS
