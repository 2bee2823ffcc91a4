#include "kernels/l2_penalty/l2_penalty.h"

#include "kernels/common/op.h"

namespace gm::ref {

void l2_penalty_forward(const OpCall& c) {
  const double* w = c.in[1].as<double>();
  double sum = 0;
  for (int64_t i = 0; i < c.in[1].numel(); ++i) sum += w[i] * w[i];
  c.out[0].as<double>()[0] = c.in[0].as<double>()[0] + c.attrs.get("factor") * sum;
}

void l2_penalty_backward(const OpCall& c) {
  const double dy = c.dout[0].as<double>()[0], factor = c.attrs.get("factor");
  if (c.din[0]) {
    double& d = c.din[0].view.as<double>()[0];
    d = (c.din[0].mode == GradMode::accumulate ? d : 0) + dy;
  }
  if (!c.din[1]) return;
  const double* w = c.in[1].as<double>();
  double* dw = c.din[1].view.as<double>();
  for (int64_t i = 0; i < c.in[1].numel(); ++i)
    dw[i] = (c.din[1].mode == GradMode::accumulate ? dw[i] : 0) + 2 * factor * w[i] * dy;
}

}  // namespace gm::ref
