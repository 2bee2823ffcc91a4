#include "kernels/clip_norm/clip_norm.h"

#include <algorithm>
#include <cmath>

#include "kernels/common/op.h"

namespace gm::ref {

void clip_norm_forward(const OpCall& c) {
  double* g = c.state[0].as<double>();
  const double limit = c.attrs.get("limit");
  double sum = 0;
  for (int64_t i = 0; i < c.state[0].numel(); ++i) sum += g[i] * g[i];
  const double norm = std::sqrt(sum);
  c.out[0].as<double>()[0] = norm;
  for (int64_t i = 0; i < c.state[0].numel(); ++i) g[i] *= limit / std::max(norm, limit);
}

}  // namespace gm::ref
