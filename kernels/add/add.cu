#include "kernels/add/add.h"

#include "kernels/common/flat.cuh"

namespace gm::GM_BACKEND_NS {

// One thread per 16-byte vector of a grid stride. Purely memory-bound: 3 tensors moved once. y may be a.
template <class T>
__global__ void add_forward_kernel(const T* a, const T* b, T* y, int64_t n) {
  await_launch_before();
  for_lanes<kVecLanes<T>>(n, [&](int64_t i, auto lanes) {
    constexpr int V = decltype(lanes)::value;
    float p[V], q[V];
    load_lanes<T, V>(a + i, p);
    load_lanes<T, V>(b + i, q);
#pragma unroll
    for (int k = 0; k < V; ++k) p[k] += q[k];
    store_lanes<T, V>(y + i, p);
  });
}

// Both gradients in one pass, so that dy is read once. A null pointer: that gradient is not wanted or is dy,
// and none accumulates there.
template <class T>
__global__ __launch_bounds__(kFlatThreads,
                             kFlatBlocks) void add_backward_kernel(const T* dy, T* da, bool accumulate_a,
                                                                   T* db, bool accumulate_b, int64_t n) {
  await_launch_before();
  for_lanes<kVecLanes<T>>(n, [&](int64_t i, auto lanes) {
    constexpr int V = decltype(lanes)::value;
    RawLanes<T, V> g, a, b;  // all on their way before one is used
    g.load(dy + i);
    if (accumulate_a) a.load(da + i);
    if (accumulate_b) b.load(db + i);
    loads_stay_above();
    float f[V];
    g.to_float(f);
    if (da) put_lanes<T, V>(da + i, f, accumulate_a, a);
    g.to_float(f);
    if (db) put_lanes<T, V>(db + i, f, accumulate_b, b);
  });
}

void add_forward(const OpCall& c) {
  const int64_t n = c.in[0].numel();
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    GM_LAUNCH(add_forward_kernel<T>, flat_grid(n, kVecLanes<T>, c.ctx), kFlatThreads, 0, c.ctx.stream,
              c.in[0].as<T>(), c.in[1].as<T>(), c.out[0].as<T>(), n);
  });
}

void add_backward(const OpCall& c) {
  const int64_t n = c.dout[0].numel();
  float_switch(c.dout[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    T* d[2];
    for (int i = 0; i < 2; ++i) d[i] = add_writes(c.din[i], c.dout[0]) ? c.din[i].view.as<T>() : nullptr;
    if (!d[0] && !d[1]) return;
    GM_LAUNCH(add_backward_kernel<T>, flat_grid(n, kVecLanes<T>, c.ctx), kFlatThreads, 0, c.ctx.stream,
              c.dout[0].as<T>(), d[0], d[0] && c.din[0].mode == GradMode::accumulate, d[1],
              d[1] && c.din[1].mode == GradMode::accumulate, n);
  });
}

}  // namespace gm::GM_BACKEND_NS
