#include "kernels/spatial_scale/spatial_scale.h"

#include <algorithm>

#include "kernels/common/dispatch.h"
#include "kernels/common/op.h"
#include "kernels/common/parallel.h"

namespace gm::GM_CPU_NS {

void spatial_scale_forward(const OpCall& c) {
  const int64_t channels = c.in[0].shape().channels(), pixels = c.in[0].shape().pixels();
  const float* m = c.in[1].as<float>();
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* x = c.in[0].as<T>();
    T* y = c.out[0].as<T>();
    c.ctx.pool->ranges(pixels, std::max<int64_t>(1, 16384 / channels), [&](int64_t begin, int64_t end, int) {
      for (int64_t p = begin; p < end; ++p) {
        const float f = m[p];
        for (int64_t i = p * channels; i < (p + 1) * channels; ++i) y[i] = from_float<T>(to_float(x[i]) * f);
      }
    });
  });
}

namespace {

// One pixel: dx where wanted; returns the sum of dy * x, in 16 lanes so that it is a vector loop with the
// same bits on every instruction set.
template <class T>
float backward_pixel(const T* x, const T* dy, float m, T* dx, bool accumulate, int64_t channels) {
  constexpr int kWide = 16;
  float sum[kWide] = {};
  int64_t k = 0;
  for (; k + kWide <= channels; k += kWide)
    for (int lane = 0; lane < kWide; ++lane) sum[lane] += to_float(dy[k + lane]) * to_float(x[k + lane]);
  for (int lane = 0; k < channels; ++k, ++lane) sum[lane] += to_float(dy[k]) * to_float(x[k]);
  if (dx)  // dx may be dy itself
    for (k = 0; k < channels; ++k) {
      const float g = to_float(dy[k]) * m;
      dx[k] = from_float<T>(accumulate ? to_float(dx[k]) + g : g);
    }
  for (int lane = 1; lane < kWide; ++lane) sum[0] += sum[lane];
  return sum[0];
}

}  // namespace

void spatial_scale_backward(const OpCall& c) {
  const GradView &gx = c.din[0], &gmap = c.din[1];
  if (!gx && !gmap) return;
  const int64_t channels = c.in[0].shape().channels(), pixels = c.in[0].shape().pixels();
  const float* m = c.in[1].as<float>();
  float* dm = gmap ? gmap.view.as<float>() : nullptr;
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T *x = c.in[0].as<T>(), *dy = c.dout[0].as<T>();
    T* dx = gx ? gx.view.as<T>() : nullptr;
    c.ctx.pool->ranges(pixels, std::max<int64_t>(1, 16384 / channels), [&](int64_t begin, int64_t end, int) {
      for (int64_t p = begin; p < end; ++p) {
        const float sum =
            backward_pixel(x + p * channels, dy + p * channels, m[p], dx ? dx + p * channels : nullptr,
                           gx.mode == GradMode::accumulate, channels);
        if (dm) dm[p] = gmap.mode == GradMode::accumulate ? dm[p] + sum : sum;
      }
    });
  });
}

}  // namespace gm::GM_CPU_NS
