#include "kernels/dropout/dropout.h"

#include "kernels/common/flat.cuh"
#include "kernels/common/op.h"

namespace gm::GM_BACKEND_NS {

// y = x * factor or y += x * factor: forward and backward are the same map, with the mask drawn anew.
// One thread per vector of a grid stride. A vector of 4 or 8 elements starts at a multiple of 4, so it uses
// one or two whole Philox blocks; about 25 integer operations an element, hidden behind the memory traffic.
// Lanes: of a vector; with Shared they divide `unit`, the elements of a sample, which all have one mask.
template <class T, int Lanes, bool Shared>
__global__ void dropout_kernel(const T* x, T* y, int64_t n, int64_t unit, DropoutParams p,
                               const StepState* step, bool accumulate) {
  await_launch_before();
  const StepState now = *step;
  for_lanes<Lanes>(n, [&](int64_t i, auto lanes) {
    constexpr int V = decltype(lanes)::value;
    const int64_t draw = Shared ? i % unit : i;
    float f[V];
    load_lanes<T, V>(x + i, f);
    if constexpr (V == 1) {
      const Philox4 r = dropout_block(now, p.stream, draw / 4);
      const int64_t w = draw % 4;  // selected without indexing, which would put the block in local memory
      const uint32_t bits = w == 0 ? r.v[0] : w == 1 ? r.v[1] : w == 2 ? r.v[2] : r.v[3];
      f[0] *= dropout_keeps(bits, p.rate) ? p.scale : 0.f;
    } else {
#pragma unroll
      for (int b = 0; b < V / 4; ++b) {
        const Philox4 r = dropout_block(now, p.stream, draw / 4 + b);
#pragma unroll
        for (int w = 0; w < 4; ++w) f[4 * b + w] *= dropout_keeps(r.v[w], p.rate) ? p.scale : 0.f;
      }
    }
    put_lanes<T, V>(y + i, f, accumulate);
  });
}

// Stochastic depth: grid.y is the sample (in strides of the grid), one draw per thread, then a flat pass over
// the sample. V > 1 needs `unit`, the elements of a sample, to be a multiple of V: samples stay aligned.
template <class T, int V>
__global__ void drop_path_kernel(const T* x, T* y, int64_t samples, int64_t unit, DropPath drop,
                                 bool accumulate) {
  await_launch_before();
  for (int64_t s = blockIdx.y; s < samples; s += gridDim.y) {
    const float factor = drop.factor(s);
    for_lanes<V>(unit, [&](int64_t i, auto lanes) {
      constexpr int L = decltype(lanes)::value;
      float f[L];
      load_lanes<T, L>(x + s * unit + i, f);
#pragma unroll
      for (int k = 0; k < L; ++k) f[k] *= factor;
      put_lanes<T, L>(y + s * unit + i, f, accumulate);
    });
  }
}

namespace {

template <class T>
void apply(const OpCall& c, const Shape& shape, const T* x, T* y, bool accumulate) {
  const DropoutParams p = dropout_params(c.attrs);
  const DropPath drop(c.attrs, c.ctx.step);
  const int64_t n = shape.numel();
  if (p.per_sample || !c.ctx.step) {
    const int64_t samples = p.per_sample ? shape[0] : 1, unit = n / samples;
    const unsigned rows = static_cast<unsigned>(samples < 65535 ? samples : 65535);
    if (unit % kVecLanes<T> == 0 || samples == 1)
      GM_LAUNCH((drop_path_kernel<T, kVecLanes<T>>), dim3(flat_grid(unit, kVecLanes<T>, c.ctx), rows),
                kFlatThreads, 0, c.ctx.stream, x, y, samples, unit, drop, accumulate);
    else
      GM_LAUNCH((drop_path_kernel<T, 1>), dim3(flat_grid(unit, 1, c.ctx), rows), kFlatThreads, 0,
                c.ctx.stream, x, y, samples, unit, drop, accumulate);
  } else {
    const int64_t unit = n / shape[0];
    auto launch = [&](auto lanes, auto shared) {
      GM_LAUNCH((dropout_kernel<T, lanes.value, shared.value>), flat_grid(n, lanes.value, c.ctx),
                kFlatThreads, 0, c.ctx.stream, x, y, n, unit, p, c.ctx.step, accumulate);
    };
    if (!p.shared)
      launch(Lanes<kVecLanes<T>>{}, std::false_type{});
    else if (unit % kVecLanes<T> == 0)
      launch(Lanes<kVecLanes<T>>{}, std::true_type{});
    else
      launch(Lanes<1>{}, std::true_type{});
  }
}

}  // namespace

void dropout_forward(const OpCall& c) {
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    apply(c, c.in[0].shape(), c.in[0].as<T>(), c.out[0].as<T>(), false);
  });
}

void dropout_backward(const OpCall& c) {
  if (!c.din[0]) return;
  float_switch(c.dout[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    apply(c, c.dout[0].shape(), c.dout[0].as<T>(), c.din[0].view.as<T>(),
          c.din[0].mode == GradMode::accumulate);
  });
}

}  // namespace gm::GM_BACKEND_NS
