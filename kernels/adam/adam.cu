#include "kernels/adam/adam.h"

#include "kernels/common/flat.cuh"
#include "kernels/common/op.h"

namespace gm::GM_BACKEND_NS {

// One kernel for all parameters: a thread takes 4 neighbours of each stream with 16-byte accesses (grad, and
// p, m, v read and written), 4 bytes of the decay mask and 8 of the bf16 copy. Memory-bound: 28 bytes a
// parameter, 30 with the copy, against about 18 instructions. hyper lies in device memory: eight broadcast
// loads a thread, served by the first-level cache. decay and copy may be null.
__global__ void adam_kernel(const float* grad, const float* hyper, const uint8_t* decay, float* param,
                            float* m, float* v, bf16* copy, AdamMode mode, int64_t n) {
  await_launch_before();
  float h[8];
#pragma unroll
  for (int k = 0; k < 8; ++k) h[k] = hyper[k];
  for_lanes<4>(n, [&](int64_t i, auto lanes) {
    constexpr int V = decltype(lanes)::value;
    float g[V], p[V], first[V], second[V];
    load_lanes<float, V>(grad + i, g);
    load_lanes<float, V>(param + i, p);
    load_lanes<float, V>(m + i, first);
    load_lanes<float, V>(v + i, second);
    const unsigned mask = decay ? load_bytes<V>(decay + i) : ~0u;
#pragma unroll
    for (int k = 0; k < V; ++k)
      adam_update(mode, h, (mask >> (8 * k) & 255u) != 0, g[k], p[k], first[k], second[k]);
    store_lanes<float, V>(param + i, p);
    store_lanes<float, V>(m + i, first);
    store_lanes<float, V>(v + i, second);
    if (copy) store_lanes<bf16, V>(copy + i, p);
  });
}

void adam_forward(const OpCall& c) {
  const int64_t n = c.in[0].numel();
  GM_LAUNCH(adam_kernel, flat_grid(n, 4, c.ctx), kFlatThreads, 0, c.ctx.stream, c.in[0].as<float>(),
            c.in[1].as<float>(), c.in.size() > 2 ? c.in[2].as<uint8_t>() : nullptr, c.state[0].as<float>(),
            c.state[1].as<float>(), c.state[2].as<float>(), c.out.empty() ? nullptr : c.out[0].as<bf16>(),
            adam_mode(c.attrs), n);
}

}  // namespace gm::GM_BACKEND_NS
