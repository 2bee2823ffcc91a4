#include "kernels/l2_penalty/l2_penalty.h"

#include "kernels/common/dispatch.h"
#include "kernels/common/op.h"
#include "kernels/common/parallel.h"
#include "kernels/common/squares.h"

namespace gm::GM_CPU_NS {

void l2_penalty_forward(const OpCall& c) {
  const int64_t n = c.in[1].numel();
  const SquareSlices slices = square_slices(n);
  float* partial = static_cast<float*>(c.workspace.data);
  float_switch(c.in[1].dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* w = c.in[1].as<T>();
    c.ctx.pool->run(slices.count, [&](int64_t k, int) {
      const int64_t begin = k * slices.length;
      partial[k] = sum_of_squares(w + begin, std::min(slices.length, n - begin));
    });
  });
  double sum = 0;
  for (int64_t k = 0; k < slices.count; ++k) sum += partial[k];
  c.out[0].as<float>()[0] = static_cast<float>(c.in[0].as<float>()[0] + c.attrs.get("factor") * sum);
}

void l2_penalty_backward(const OpCall& c) {
  const float dy = c.dout[0].as<float>()[0], scale = static_cast<float>(2 * c.attrs.get("factor")) * dy;
  if (c.din[0]) {
    float* d = c.din[0].view.as<float>();
    *d = c.din[0].mode == GradMode::accumulate ? *d + dy : dy;
  }
  if (!c.din[1]) return;
  const bool accumulate = c.din[1].mode == GradMode::accumulate;
  float* dw = c.din[1].view.as<float>();
  float_switch(c.in[1].dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* w = c.in[1].as<T>();
    c.ctx.pool->ranges(c.in[1].numel(), 16384, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i)
        dw[i] = accumulate ? dw[i] + to_float(w[i]) * scale : to_float(w[i]) * scale;
    });
  });
}

}  // namespace gm::GM_CPU_NS
