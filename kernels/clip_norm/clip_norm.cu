#include "kernels/clip_norm/clip_norm.h"

#include "kernels/common/op.h"
#include "kernels/common/squares.cuh"

namespace gm::GM_BACKEND_NS {

__global__ void clip_norm_kernel(const float* partial, float* norm, int64_t count) {
  await_launch_before();
  GM_SHARED(float, scratch, [32]);
  const float sum = sum_in_block(partial, count, scratch);
  if (threadIdx.x == 0) norm[0] = sqrtf(sum);
}

// Below the limit nothing is read but the norm.
__global__ void clip_scale_kernel(const float* norm, float* g, float limit, int64_t n) {
  await_launch_before();
  const float size = norm[0];
  if (size <= limit) return;
  const float scale = limit / size;
  for_lanes<4>(n, [&](int64_t i, auto lanes) {
    constexpr int V = decltype(lanes)::value;
    float f[V];
    load_lanes<float, V>(g + i, f);
#pragma unroll
    for (int k = 0; k < V; ++k) f[k] *= scale;
    store_lanes<float, V>(g + i, f);
  });
}

void clip_norm_forward(const OpCall& c) {
  const int64_t n = c.state[0].numel();
  const SquareSlices slices = square_slices(n);
  float *partial = static_cast<float*>(c.workspace.data), *g = c.state[0].as<float>(),
        *norm = c.out[0].as<float>();
  GM_LAUNCH(square_slices_kernel<float>, static_cast<unsigned>(slices.count), kFlatThreads, 0, c.ctx.stream,
            g, partial, n, slices.length);
  GM_LAUNCH(clip_norm_kernel, 1, kFlatThreads, 0, c.ctx.stream, partial, norm, slices.count);
  GM_LAUNCH(clip_scale_kernel, flat_grid(n, 4, c.ctx), kFlatThreads, 0, c.ctx.stream, norm, g,
            static_cast<float>(c.attrs.get("limit")), n);
}

}  // namespace gm::GM_BACKEND_NS
