#include "kernels/moving_average/moving_average.h"

#include "kernels/common/op.h"

namespace gm::ref {

void moving_average_forward(const OpCall& c) {
  const double *p = c.in[0].as<double>(), decay = c.in[1].as<double>()[0];
  double* average = c.state[0].as<double>();
  for (int64_t i = 0; i < c.in[0].numel(); ++i) average[i] = decay * average[i] + (1 - decay) * p[i];
}

}  // namespace gm::ref
