#include "kernels/mix/mix.h"

#include "kernels/common/ceil_div.h"
#include "kernels/common/flat.cuh"
#include "kernels/common/op.h"

namespace gm::GM_BACKEND_NS {

namespace {
struct MixLabels {
  const int32_t* hard;  // (N), or null:
  const float* soft;    // (N, C)

  __device__ float at(int64_t image, int k, int classes) const {
    return hard ? (hard[image] == k ? 1.f : 0.f) : soft[image * classes + k];
  }
};
}  // namespace

// One image a row of the grid, in strides of it. Thread 0 draws for its block: rejection and two roots would
// cost every thread more than its pixels.
template <class T>
__global__ void mix_kernel(const T* x, MixLabels labels, T* y, float* targets, int64_t n, int h, int w,
                           int channels, int classes, MixParams params, const StepState* step) {
  await_launch_before();
  GM_SHARED(MixDraw, shared, [1]);
  if (threadIdx.x == 0) shared[0] = mix_draw(params, step, h, w);
  __syncthreads();
  const MixDraw draw = shared[0];
  const int64_t unit = int64_t{h} * w * channels;
  for (int64_t i = blockIdx.y; i < n; i += gridDim.y) {
    const T *own = x + i * unit, *other = x + (n - 1 - i) * unit;
    for_lanes<1>(unit, [&](int64_t k, auto) {
      const int64_t pixel = k / channels;
      const float a = draw.at(static_cast<int>(pixel / w), static_cast<int>(pixel % w));
      y[i * unit + k] = from_float<T>(a * to_float(own[k]) + (1.f - a) * to_float(other[k]));
    });
    if (blockIdx.x != 0) continue;
    for (int k = threadIdx.x; k < classes; k += blockDim.x)
      targets[i * classes + k] =
          draw.lambda * labels.at(i, k, classes) + (1.f - draw.lambda) * labels.at(n - 1 - i, k, classes);
  }
}

void mix_forward(const OpCall& c) {
  const Shape& s = c.in[0].shape();
  const int64_t unit = s[1] * s[2] * s[3];
  const dim3 grid(static_cast<unsigned>(ceil_div(unit, 4 * kFlatThreads)),
                  static_cast<unsigned>(s[0] < 1024 ? s[0] : 1024));
  const bool hard = c.in[1].dtype() == DType::i32;
  const MixLabels labels{hard ? c.in[1].as<int32_t>() : nullptr, hard ? nullptr : c.in[1].as<float>()};
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    GM_LAUNCH(mix_kernel<T>, grid, kFlatThreads, 0, c.ctx.stream, c.in[0].as<T>(), labels, c.out[0].as<T>(),
              c.out[1].as<float>(), s[0], static_cast<int>(s[1]), static_cast<int>(s[2]),
              static_cast<int>(s[3]), static_cast<int>(c.out[1].shape()[1]), mix_params(c.attrs), c.ctx.step);
  });
}

}  // namespace gm::GM_BACKEND_NS
