#include <algorithm>
#include <cmath>

#include "kernels/common/op.h"
#include "kernels/common/parallel.h"
#include "kernels/policy_loss/policy_loss.h"

// Plain libm: this op is too small for its speed to matter.

namespace gm::GM_CPU_NS {

void policy_loss_forward(const OpCall& c) {
  const int64_t rows = c.in[0].shape()[0], options = c.in[0].shape()[1];
  const PolicyShape s = policy_shape(c.attrs);
  const int32_t* action = c.in[1].as<int32_t>();
  const float *z = c.in[0].as<float>(), *advantage = c.in[2].as<float>();
  float *loss = c.out[0].as<float>(), *log_p = c.saved[0].as<float>(), *slope = c.saved[1].as<float>();
  c.ctx.pool->ranges(rows, std::max<int64_t>(1, 1024 / options), [&](int64_t begin, int64_t end, int thread) {
    float* u = static_cast<float*>(c.ctx.pool->scratch(thread, options * sizeof(float)));
    for (int64_t n = begin; n < end; ++n) {
      float largest = -INFINITY, sum = 0, entropy = 0;
      for (int64_t k = 0; k < options; ++k) {
        const float scaled = z[n * options + k] / s.temperature;
        const float t = s.constant > 0 ? std::tanh(scaled) : 0.f;
        u[k] = s.constant > 0 ? s.constant * t : scaled;
        if (slope) slope[n * options + k] = (s.constant > 0 ? s.constant * (1 - t * t) : 1.f) / s.temperature;
        largest = std::max(largest, u[k]);
      }
      for (int64_t k = 0; k < options; ++k) sum += std::exp(u[k] - largest);
      const float log_sum = largest + std::log(sum);
      for (int64_t k = 0; k < options; ++k) {
        u[k] -= log_sum;
        entropy -= std::exp(u[k]) * u[k];
        if (log_p) log_p[n * options + k] = u[k];
      }
      loss[n] = -advantage[n] * u[action[n]] - s.entropy_weight * entropy;
    }
  });
}

void policy_loss_backward(const OpCall& c) {
  if (!c.din[0]) return;
  const int64_t rows = c.din[0].view.shape()[0], options = c.din[0].view.shape()[1];
  const PolicyShape s = policy_shape(c.attrs);
  const int32_t* action = c.in[1].as<int32_t>();
  const float *advantage = c.in[2].as<float>(), *dloss = c.dout[0].as<float>();
  const float *log_p = c.saved[0].as<float>(), *slope = c.saved[1].as<float>();
  float* dz = c.din[0].view.as<float>();
  const bool accumulate = c.din[0].mode == GradMode::accumulate;
  c.ctx.pool->ranges(rows, std::max<int64_t>(1, 1024 / options), [&](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; ++n) {
      float entropy = 0;
      for (int64_t k = n * options; k < (n + 1) * options; ++k) entropy -= std::exp(log_p[k]) * log_p[k];
      for (int64_t k = n * options; k < (n + 1) * options; ++k) {
        const float p = std::exp(log_p[k]), chosen = k - n * options == action[n] ? 1.f : 0.f;
        const float g = advantage[n] * (p - chosen) + s.entropy_weight * p * (log_p[k] + entropy);
        dz[k] = (accumulate ? dz[k] : 0.f) + dloss[n] * g * slope[k];
      }
    }
  });
}

}  // namespace gm::GM_CPU_NS
