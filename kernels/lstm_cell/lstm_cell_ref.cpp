#include <cmath>

#include "kernels/common/op.h"

namespace gm::ref {

namespace {
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
void put(const GradView& g, int64_t at, double value) {
  if (!g) return;
  double& d = g.view.as<double>()[at];
  d = (g.mode == GradMode::accumulate ? d : 0) + value;
}
}  // namespace

void lstm_cell_forward(const OpCall& c) {
  const int64_t rows = c.in[1].shape()[0], width = c.in[1].shape()[1];
  for (int64_t n = 0; n < rows; ++n)
    for (int64_t k = 0; k < width; ++k) {
      const double* g = c.in[0].as<double>() + 4 * n * width + k;
      const double next =
          sigmoid(g[width]) * c.in[1].as<double>()[n * width + k] + sigmoid(g[0]) * std::tanh(g[2 * width]);
      c.out[0].as<double>()[n * width + k] = sigmoid(g[3 * width]) * std::tanh(next);
      c.out[1].as<double>()[n * width + k] = next;
    }
}

void lstm_cell_backward(const OpCall& c) {
  const int64_t rows = c.in[1].shape()[0], width = c.in[1].shape()[1];
  for (int64_t n = 0; n < rows; ++n)
    for (int64_t k = 0; k < width; ++k) {
      const int64_t at = n * width + k, gate = 4 * n * width + k;
      const double* g = c.in[0].as<double>() + gate;
      const double i = sigmoid(g[0]), f = sigmoid(g[width]), t = std::tanh(g[2 * width]),
                   o = sigmoid(g[3 * width]);
      const double shown = std::tanh(c.out[1].as<double>()[at]);
      const double dh = c.dout[0] ? c.dout[0].as<double>()[at] : 0,
                   dc = c.dout[1] ? c.dout[1].as<double>()[at] : 0;
      const double e = dc + dh * o * (1 - shown * shown);
      put(c.din[0], gate, e * t * i * (1 - i));
      put(c.din[0], gate + width, e * c.in[1].as<double>()[at] * f * (1 - f));
      put(c.din[0], gate + 2 * width, e * i * (1 - t * t));
      put(c.din[0], gate + 3 * width, dh * shown * o * (1 - o));
      put(c.din[1], at, e * f);
    }
}

}  // namespace gm::ref
