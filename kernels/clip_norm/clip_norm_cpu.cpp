#include <cmath>

#include "kernels/clip_norm/clip_norm.h"
#include "kernels/common/op.h"
#include "kernels/common/parallel.h"
#include "kernels/common/squares.h"

namespace gm::GM_CPU_NS {

void clip_norm_forward(const OpCall& c) {
  const int64_t n = c.state[0].numel();
  const SquareSlices slices = square_slices(n);
  float *g = c.state[0].as<float>(), *partial = static_cast<float*>(c.workspace.data);
  c.ctx.pool->run(slices.count, [&](int64_t k, int) {
    const int64_t begin = k * slices.length;
    partial[k] = sum_of_squares(g + begin, std::min(slices.length, n - begin));
  });
  double sum = 0;
  for (int64_t k = 0; k < slices.count; ++k) sum += partial[k];
  const float norm = static_cast<float>(std::sqrt(sum)), limit = static_cast<float>(c.attrs.get("limit"));
  c.out[0].as<float>()[0] = norm;
  if (norm <= limit) return;
  const float scale = limit / norm;
  c.ctx.pool->ranges(n, 16384, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) g[i] *= scale;
  });
}

}  // namespace gm::GM_CPU_NS
