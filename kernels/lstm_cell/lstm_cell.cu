#include "kernels/lstm_cell/lstm_cell.h"

#include "kernels/common/flat.cuh"
#include "kernels/common/op.h"

namespace gm::GM_BACKEND_NS {

namespace {
__device__ __forceinline__ void put(float* d, bool accumulate, float value) {
  *d = accumulate ? *d + value : value;
}
}  // namespace

// One thread per element of the state.
__global__ void lstm_cell_forward_kernel(const float* gates, const float* state, float* h, float* next,
                                         int64_t n, int64_t width) {
  await_launch_before();
  for (int64_t at = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; at < n;
       at += int64_t{gridDim.x} * blockDim.x) {
    const float* g = gates + 4 * (at / width) * width + at % width;
    const float c = sigmoid(g[width]) * state[at] + sigmoid(g[0]) * tanhf(g[2 * width]);
    next[at] = c;
    h[at] = sigmoid(g[3 * width]) * tanhf(c);
  }
}

// dh, dc, dgates and dstate may be null.
__global__ void lstm_cell_backward_kernel(const float* gates, const float* state, const float* next,
                                          const float* dh_all, const float* dc_all, float* dgates,
                                          bool add_gates, float* dstate, bool add_state, int64_t n,
                                          int64_t width) {
  await_launch_before();
  for (int64_t at = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; at < n;
       at += int64_t{gridDim.x} * blockDim.x) {
    const int64_t gate = 4 * (at / width) * width + at % width;
    const float* g = gates + gate;
    const float i = sigmoid(g[0]), f = sigmoid(g[width]), t = tanhf(g[2 * width]), o = sigmoid(g[3 * width]);
    const float shown = tanhf(next[at]);
    const float dh = dh_all ? dh_all[at] : 0.f, dc = dc_all ? dc_all[at] : 0.f;
    const float e = dc + dh * o * (1.f - shown * shown);
    if (dgates) {
      float* d = dgates + gate;
      put(d, add_gates, e * t * i * (1.f - i));
      put(d + width, add_gates, e * state[at] * f * (1.f - f));
      put(d + 2 * width, add_gates, e * i * (1.f - t * t));
      put(d + 3 * width, add_gates, dh * shown * o * (1.f - o));
    }
    if (dstate) put(dstate + at, add_state, e * f);
  }
}

void lstm_cell_forward(const OpCall& c) {
  const int64_t n = c.in[1].numel();
  GM_LAUNCH(lstm_cell_forward_kernel, grid_for(n, 128, c.ctx), 128, 0, c.ctx.stream, c.in[0].as<float>(),
            c.in[1].as<float>(), c.out[0].as<float>(), c.out[1].as<float>(), n, c.in[1].shape()[1]);
}

void lstm_cell_backward(const OpCall& c) {
  const int64_t n = c.in[1].numel();
  GM_LAUNCH(lstm_cell_backward_kernel, grid_for(n, 128, c.ctx), 128, 0, c.ctx.stream, c.in[0].as<float>(),
            c.in[1].as<float>(), c.out[1].as<float>(), c.dout[0].as<float>(), c.dout[1].as<float>(),
            c.din[0] ? c.din[0].view.as<float>() : nullptr, c.din[0].mode == GradMode::accumulate,
            c.din[1] ? c.din[1].view.as<float>() : nullptr, c.din[1].mode == GradMode::accumulate, n,
            c.in[1].shape()[1]);
}

}  // namespace gm::GM_BACKEND_NS
