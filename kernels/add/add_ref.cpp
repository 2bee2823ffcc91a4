#include "kernels/add/add.h"

namespace gm::ref {

void add_forward(const OpCall& c) {
  const double *a = c.in[0].as<double>(), *b = c.in[1].as<double>();
  double* y = c.out[0].as<double>();
  for (int64_t i = 0; i < c.in[0].numel(); ++i) y[i] = a[i] + b[i];
}

void add_backward(const OpCall& c) {
  const double* dy = c.dout[0].as<double>();
  for (const GradView& g : c.din) {
    if (!add_writes(g, c.dout[0])) continue;
    double* d = g.view.as<double>();
    for (int64_t i = 0; i < c.dout[0].numel(); ++i)
      d[i] = (g.mode == GradMode::accumulate ? d[i] : 0) + dy[i];
  }
}

}  // namespace gm::ref
