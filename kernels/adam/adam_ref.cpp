#include <cmath>

#include "kernels/adam/adam.h"
#include "kernels/common/op.h"

namespace gm::ref {

void adam_forward(const OpCall& c) {
  const double *grad = c.in[0].as<double>(), *h = c.in[1].as<double>();
  const uint8_t* mask = c.in.size() > 2 && c.in[2] ? c.in[2].as<uint8_t>() : nullptr;
  double *param = c.state[0].as<double>(), *m = c.state[1].as<double>(), *v = c.state[2].as<double>();
  const double lr = h[0], beta1 = h[1], beta2 = h[2], eps = h[3], bc1 = h[4], bc2 = h[5];
  const bool epsilon_hat = c.attrs.geti("epsilon_hat", 0), decoupled = c.attrs.geti("decoupled", 0);
  for (int64_t i = 0; i < c.in[0].numel(); ++i) {
    const double decay = !mask || mask[i] ? h[7] : 0;
    double g = grad[i] * h[6];
    if (!decoupled) g += decay * param[i];
    if (decoupled) param[i] -= lr * decay * param[i];
    m[i] = beta1 * m[i] + (1 - beta1) * g;
    v[i] = beta2 * v[i] + (1 - beta2) * g * g;
    if (epsilon_hat)
      param[i] -= lr * std::sqrt(bc2) / bc1 * m[i] / (std::sqrt(v[i]) + eps);
    else
      param[i] -= lr * (m[i] / bc1) / (std::sqrt(v[i] / bc2) + eps);
    if (!c.out.empty()) c.out[0].as<double>()[i] = param[i];
  }
}

}  // namespace gm::ref
