#include "kernels/policy_loss/policy_loss.h"

#include "kernels/common/flat.cuh"
#include "kernels/common/op.h"
#include "kernels/common/simt.h"

namespace gm::GM_BACKEND_NS {

namespace {
__device__ __forceinline__ float shaped(float z, const PolicyShape& s) {
  return s.constant > 0.f ? s.constant * tanhf(z / s.temperature) : z / s.temperature;
}
}  // namespace

// One thread per row: a decision has few options. log_p and slope may be null.
__global__ void policy_loss_forward_kernel(const float* z_all, const int* action, const float* advantage,
                                           float* loss, float* log_p, float* slope, int64_t rows,
                                           int64_t options, PolicyShape s) {
  await_launch_before();
  for (int64_t n = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; n < rows;
       n += int64_t{gridDim.x} * blockDim.x) {
    const float* z = z_all + n * options;
    float largest = -INFINITY, sum = 0.f, entropy = 0.f;
    for (int64_t k = 0; k < options; ++k) largest = fmaxf(largest, shaped(z[k], s));
    for (int64_t k = 0; k < options; ++k) sum += expf(shaped(z[k], s) - largest);
    const float log_sum = largest + logf(sum);
    for (int64_t k = 0; k < options; ++k) {
      const float l = shaped(z[k], s) - log_sum;
      entropy -= expf(l) * l;
      if (log_p) log_p[n * options + k] = l;
      if (slope) {
        const float t = s.constant > 0.f ? tanhf(z[k] / s.temperature) : 0.f;
        slope[n * options + k] = (s.constant > 0.f ? s.constant * (1.f - t * t) : 1.f) / s.temperature;
      }
    }
    loss[n] = -advantage[n] * (shaped(z[action[n]], s) - log_sum) - s.entropy_weight * entropy;
  }
}

__global__ void policy_loss_backward_kernel(const float* log_p, const float* slope, const int* action,
                                            const float* advantage, const float* dloss, float* dz,
                                            bool accumulate, int64_t rows, int64_t options, PolicyShape s) {
  await_launch_before();
  for (int64_t n = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; n < rows;
       n += int64_t{gridDim.x} * blockDim.x) {
    float entropy = 0.f;
    for (int64_t k = n * options; k < (n + 1) * options; ++k) entropy -= expf(log_p[k]) * log_p[k];
    for (int64_t k = n * options; k < (n + 1) * options; ++k) {
      const float p = expf(log_p[k]), chosen = k - n * options == action[n] ? 1.f : 0.f;
      const float g = advantage[n] * (p - chosen) + s.entropy_weight * p * (log_p[k] + entropy);
      dz[k] = (accumulate ? dz[k] : 0.f) + dloss[n] * g * slope[k];
    }
  }
}

void policy_loss_forward(const OpCall& c) {
  const int64_t rows = c.in[0].shape()[0], options = c.in[0].shape()[1];
  GM_LAUNCH(policy_loss_forward_kernel, grid_for(rows, 128, c.ctx), 128, 0, c.ctx.stream, c.in[0].as<float>(),
            c.in[1].as<int>(), c.in[2].as<float>(), c.out[0].as<float>(), c.saved[0].as<float>(),
            c.saved[1].as<float>(), rows, options, policy_shape(c.attrs));
}

void policy_loss_backward(const OpCall& c) {
  if (!c.din[0]) return;
  const int64_t rows = c.din[0].view.shape()[0], options = c.din[0].view.shape()[1];
  GM_LAUNCH(policy_loss_backward_kernel, grid_for(rows, 128, c.ctx), 128, 0, c.ctx.stream,
            c.saved[0].as<float>(), c.saved[1].as<float>(), c.in[1].as<int>(), c.in[2].as<float>(),
            c.dout[0].as<float>(), c.din[0].view.as<float>(), c.din[0].mode == GradMode::accumulate, rows,
            options, policy_shape(c.attrs));
}

}  // namespace gm::GM_BACKEND_NS
