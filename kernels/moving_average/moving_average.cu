#include "kernels/moving_average/moving_average.h"

#include "kernels/common/flat.cuh"
#include "kernels/common/op.h"

namespace gm::GM_BACKEND_NS {

// 12 bytes a parameter.
__global__ void moving_average_kernel(const float* p, const float* decay, float* average, int64_t n) {
  await_launch_before();
  const float d = decay[0];
  for_lanes<4>(n, [&](int64_t i, auto lanes) {
    constexpr int V = decltype(lanes)::value;
    float x[V], a[V];
    load_lanes<float, V>(p + i, x);
    load_lanes<float, V>(average + i, a);
#pragma unroll
    for (int k = 0; k < V; ++k) a[k] = moved(a[k], x[k], d);
    store_lanes<float, V>(average + i, a);
  });
}

void moving_average_forward(const OpCall& c) {
  const int64_t n = c.in[0].numel();
  GM_LAUNCH(moving_average_kernel, flat_grid(n, 4, c.ctx), kFlatThreads, 0, c.ctx.stream, c.in[0].as<float>(),
            c.in[1].as<float>(), c.state[0].as<float>(), n);
}

}  // namespace gm::GM_BACKEND_NS
