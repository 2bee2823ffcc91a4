#include "kernels/l2_penalty/l2_penalty.h"

#include "kernels/common/op.h"
#include "kernels/common/squares.cuh"

namespace gm::GM_BACKEND_NS {

// Second stage: one block.
__global__ void penalty_finish_kernel(const float* partial, const float* loss, float* y, float factor,
                                      int64_t count) {
  await_launch_before();
  GM_SHARED(float, scratch, [32]);
  const float sum = sum_in_block(partial, count, scratch);
  if (threadIdx.x == 0) y[0] = loss[0] + factor * sum;
}

// Flat: one vector of w a thread. dloss and dw may be null.
template <class T>
__global__ void penalty_backward_kernel(const T* w, const float* dy, float* dloss, bool accumulate_dloss,
                                        float* dw, bool accumulate_dw, float factor, int64_t n) {
  await_launch_before();
  const float scale = factor * 2.f * dy[0];
  if (dloss && blockIdx.x == 0 && threadIdx.x == 0) *dloss = accumulate_dloss ? *dloss + dy[0] : dy[0];
  if (!dw) return;
  for_lanes<4>(n, [&](int64_t i, auto lanes) {
    constexpr int V = decltype(lanes)::value;
    float f[V];
    load_lanes<T, V>(w + i, f);
#pragma unroll
    for (int k = 0; k < V; ++k) f[k] *= scale;
    put_lanes<float, V>(dw + i, f, accumulate_dw);
  });
}

void l2_penalty_forward(const OpCall& c) {
  const int64_t n = c.in[1].numel();
  const SquareSlices slices = square_slices(n);
  float* partial = static_cast<float*>(c.workspace.data);
  float_switch(c.in[1].dtype(), [&](auto zero) {
    using T = decltype(zero);
    GM_LAUNCH(square_slices_kernel<T>, static_cast<unsigned>(slices.count), kFlatThreads, 0, c.ctx.stream,
              c.in[1].as<T>(), partial, n, slices.length);
  });
  GM_LAUNCH(penalty_finish_kernel, 1, kFlatThreads, 0, c.ctx.stream, partial, c.in[0].as<float>(),
            c.out[0].as<float>(), static_cast<float>(c.attrs.get("factor")), slices.count);
}

void l2_penalty_backward(const OpCall& c) {
  if (!c.din[0] && !c.din[1]) return;
  const int64_t n = c.in[1].numel();
  float_switch(c.in[1].dtype(), [&](auto zero) {
    using T = decltype(zero);
    GM_LAUNCH(penalty_backward_kernel<T>, flat_grid(n, 4, c.ctx), kFlatThreads, 0, c.ctx.stream,
              c.in[1].as<T>(), c.dout[0].as<float>(), c.din[0] ? c.din[0].view.as<float>() : nullptr,
              c.din[0].mode == GradMode::accumulate, c.din[1] ? c.din[1].view.as<float>() : nullptr,
              c.din[1].mode == GradMode::accumulate, static_cast<float>(c.attrs.get("factor")), n);
  });
}

}  // namespace gm::GM_BACKEND_NS
