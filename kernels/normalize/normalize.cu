#include "kernels/normalize/normalize.h"

#include "kernels/common/flat.cuh"
#include "kernels/common/op.h"

namespace gm::GM_BACKEND_NS {

namespace {

constexpr int kLanes = 4;  // elements a thread moves at once: 16 bytes of f32, 4 bytes of u8

template <int V>
__device__ __forceinline__ void load_pixels(const float* p, float (&f)[V]) {
  load_lanes<float, V>(p, f);
}
template <int V>
__device__ __forceinline__ void load_pixels(const uint8_t* p, float (&f)[V]) {
  const unsigned word = load_bytes<V>(p);
#pragma unroll
  for (int k = 0; k < V; ++k) f[k] = static_cast<float>(word >> (8 * k) & 255u);
}

// a[c] with c known only at run time, without local memory: the compiler turns it into selects.
template <int C>
__device__ __forceinline__ float pick(const float (&a)[kMaxPixelChannels], int c) {
  float v = a[0];
#pragma unroll
  for (int k = 1; k < C; ++k) v = c == k ? a[k] : v;
  return v;
}

}  // namespace

// One thread per 4 neighbouring elements of a grid stride. C is a template argument so that the channel of
// the first element is a modulo by a constant; the next elements count on from it.
template <class X, class Y, int C>
__global__ void normalize_forward_kernel(const X* x, Y* y, int64_t n, PixelScaling s) {
  await_launch_before();
  for_lanes<kLanes>(n, [&](int64_t i, auto lanes) {
    constexpr int V = decltype(lanes)::value;
    float f[V];
    load_pixels<V>(x + i, f);
    int c = static_cast<int>(i % C);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      f[k] = (f[k] - pick<C>(s.mean, c)) / pick<C>(s.std, c);
      c = c + 1 == C ? 0 : c + 1;
    }
    store_lanes<Y, V>(y + i, f);
  });
}

template <class Y, int C>
__global__ void normalize_backward_kernel(const Y* dy, float* dx, int64_t n, PixelScaling s,
                                          bool accumulate) {
  await_launch_before();
  for_lanes<kLanes>(n, [&](int64_t i, auto lanes) {
    constexpr int V = decltype(lanes)::value;
    float f[V];
    load_lanes<Y, V>(dy + i, f);
    int c = static_cast<int>(i % C);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      f[k] /= pick<C>(s.std, c);
      c = c + 1 == C ? 0 : c + 1;
    }
    put_lanes<float, V>(dx + i, f, accumulate);
  });
}

namespace {
template <class F>
void channel_switch(int64_t channels, F&& f) {
  switch (channels) {
    case 1:
      return f(Lanes<1>{});
    case 2:
      return f(Lanes<2>{});
    case 3:
      return f(Lanes<3>{});
    case 4:
      return f(Lanes<4>{});
  }
}
}  // namespace

void normalize_forward(const OpCall& c) {
  const int64_t n = c.in[0].numel();
  float_switch(c.out[0].dtype(), [&](auto zero) {
    using Y = decltype(zero);
    channel_switch(c.in[0].shape().channels(), [&](auto channels) {
      constexpr int C = decltype(channels)::value;
      if (c.in[0].dtype() == DType::u8)
        GM_LAUNCH((normalize_forward_kernel<uint8_t, Y, C>), flat_grid(n, kLanes, c.ctx), kFlatThreads, 0,
                  c.ctx.stream, c.in[0].as<uint8_t>(), c.out[0].as<Y>(), n, pixel_scaling(c.attrs));
      else
        GM_LAUNCH((normalize_forward_kernel<float, Y, C>), flat_grid(n, kLanes, c.ctx), kFlatThreads, 0,
                  c.ctx.stream, c.in[0].as<float>(), c.out[0].as<Y>(), n, pixel_scaling(c.attrs));
    });
  });
}

void normalize_backward(const OpCall& c) {
  if (!c.din[0]) return;
  const int64_t n = c.dout[0].numel();
  float_switch(c.dout[0].dtype(), [&](auto zero) {
    using Y = decltype(zero);
    channel_switch(c.dout[0].shape().channels(), [&](auto channels) {
      constexpr int C = decltype(channels)::value;
      GM_LAUNCH((normalize_backward_kernel<Y, C>), flat_grid(n, kLanes, c.ctx), kFlatThreads, 0, c.ctx.stream,
                c.dout[0].as<Y>(), c.din[0].view.as<float>(), n, pixel_scaling(c.attrs),
                c.din[0].mode == GradMode::accumulate);
    });
  });
}

}  // namespace gm::GM_BACKEND_NS
