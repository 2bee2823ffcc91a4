#include "kernels/sgd/sgd.h"

#include "kernels/common/flat.cuh"
#include "kernels/common/op.h"

namespace gm::GM_BACKEND_NS {

// As adam_kernel with one moment less: 20 bytes a parameter, 22 with the bf16 copy. decay and copy may be
// null.
__global__ void sgd_kernel(const float* grad, const float* hyper, const uint8_t* decay, float* param,
                           float* velocity, bf16* copy, bool nesterov, int64_t n) {
  await_launch_before();
  float h[8];
#pragma unroll
  for (int k = 0; k < 8; ++k) h[k] = hyper[k];
  for_lanes<4>(n, [&](int64_t i, auto lanes) {
    constexpr int V = decltype(lanes)::value;
    float g[V], p[V], v[V];
    load_lanes<float, V>(grad + i, g);
    load_lanes<float, V>(param + i, p);
    load_lanes<float, V>(velocity + i, v);
    const unsigned mask = decay ? load_bytes<V>(decay + i) : ~0u;
#pragma unroll
    for (int k = 0; k < V; ++k) sgd_update(nesterov, h, (mask >> (8 * k) & 255u) != 0, g[k], p[k], v[k]);
    store_lanes<float, V>(param + i, p);
    store_lanes<float, V>(velocity + i, v);
    if (copy) store_lanes<bf16, V>(copy + i, p);
  });
}

void sgd_forward(const OpCall& c) {
  const int64_t n = c.in[0].numel();
  GM_LAUNCH(sgd_kernel, flat_grid(n, 4, c.ctx), kFlatThreads, 0, c.ctx.stream, c.in[0].as<float>(),
            c.in[1].as<float>(), c.in.size() > 2 ? c.in[2].as<uint8_t>() : nullptr, c.state[0].as<float>(),
            c.state[1].as<float>(), c.out.empty() ? nullptr : c.out[0].as<bf16>(),
            c.attrs.geti("nesterov", 0) != 0, n);
}

}  // namespace gm::GM_BACKEND_NS
