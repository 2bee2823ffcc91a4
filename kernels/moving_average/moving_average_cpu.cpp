#include "kernels/common/op.h"
#include "kernels/common/parallel.h"
#include "kernels/moving_average/moving_average.h"

namespace gm::GM_CPU_NS {

void moving_average_forward(const OpCall& c) {
  const float *p = c.in[0].as<float>(), decay = c.in[1].as<float>()[0];
  float* average = c.state[0].as<float>();
  c.ctx.pool->ranges(c.in[0].numel(), 16384, [&](int64_t begin, int64_t end, int) {
#pragma GCC ivdep  // the buffers are distinct
    for (int64_t i = begin; i < end; ++i) average[i] = moved(average[i], p[i], decay);
  });
}

}  // namespace gm::GM_CPU_NS
