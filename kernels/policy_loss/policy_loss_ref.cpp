#include <algorithm>
#include <cmath>

#include "kernels/common/op.h"

namespace gm::ref {

void policy_loss_forward(const OpCall& c) {
  const int64_t rows = c.in[0].shape()[0], options = c.in[0].shape()[1];
  const double temperature = c.attrs.get("temperature", 1), constant = c.attrs.get("constant", 0);
  for (int64_t n = 0; n < rows; ++n) {
    std::vector<double> u(options), slope(options, 1 / temperature);
    double largest = -1e300, sum = 0, entropy = 0;
    for (int64_t k = 0; k < options; ++k) {
      u[k] = c.in[0].as<double>()[n * options + k] / temperature;
      if (constant > 0) {
        const double t = std::tanh(u[k]);
        u[k] = constant * t;
        slope[k] = constant * (1 - t * t) / temperature;
      }
      largest = std::max(largest, u[k]);
    }
    for (double v : u) sum += std::exp(v - largest);
    for (double& v : u) {
      v -= largest + std::log(sum);
      entropy -= std::exp(v) * v;
    }
    c.out[0].as<double>()[n] =
        -c.in[2].as<double>()[n] * u[c.in[1].as<int32_t>()[n]] - c.attrs.get("entropy_weight", 0) * entropy;
    for (int64_t k = 0; k < options && c.saved[0]; ++k) {
      c.saved[0].as<double>()[n * options + k] = u[k];
      c.saved[1].as<double>()[n * options + k] = slope[k];
    }
  }
}

void policy_loss_backward(const OpCall& c) {
  if (!c.din[0]) return;
  const int64_t rows = c.din[0].view.shape()[0], options = c.din[0].view.shape()[1];
  for (int64_t n = 0; n < rows; ++n) {
    const double *log_p = c.saved[0].as<double>() + n * options,
                 *slope = c.saved[1].as<double>() + n * options;
    double entropy = 0;
    for (int64_t k = 0; k < options; ++k) entropy -= std::exp(log_p[k]) * log_p[k];
    for (int64_t k = 0; k < options; ++k) {
      const double p = std::exp(log_p[k]), chosen = c.in[1].as<int32_t>()[n] == k;
      const double g = c.in[2].as<double>()[n] * (p - chosen) +
                       c.attrs.get("entropy_weight", 0) * p * (log_p[k] + entropy);
      double& d = c.din[0].view.as<double>()[n * options + k];
      d = (c.din[0].mode == GradMode::accumulate ? d : 0) + c.dout[0].as<double>()[n] * g * slope[k];
    }
  }
}

}  // namespace gm::ref
