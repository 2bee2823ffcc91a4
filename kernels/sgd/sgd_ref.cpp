#include "kernels/common/op.h"
#include "kernels/sgd/sgd.h"

namespace gm::ref {

void sgd_forward(const OpCall& c) {
  const double *grad = c.in[0].as<double>(), *h = c.in[1].as<double>();
  const uint8_t* mask = c.in.size() > 2 && c.in[2] ? c.in[2].as<uint8_t>() : nullptr;
  double *param = c.state[0].as<double>(), *velocity = c.state[1].as<double>();
  const double lr = h[0], momentum = h[1];
  for (int64_t i = 0; i < c.in[0].numel(); ++i) {
    double g = grad[i] * h[6];
    if (!mask || mask[i]) g += h[7] * param[i];
    velocity[i] = momentum * velocity[i] + g;
    param[i] -= lr * (c.attrs.geti("nesterov", 0) ? g + momentum * velocity[i] : velocity[i]);
    if (!c.out.empty()) c.out[0].as<double>()[i] = param[i];
  }
}

}  // namespace gm::ref
