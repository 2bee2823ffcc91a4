#include "kernels/common/dispatch.h"
#include "kernels/common/op.h"
#include "kernels/common/parallel.h"
#include "kernels/mix/mix.h"

namespace gm::GM_CPU_NS {

void mix_forward(const OpCall& c) {
  const Shape& s = c.in[0].shape();
  float* t = c.out[1].as<float>();
  const int64_t n = s[0], h = s[1], w = s[2], line = s[2] * s[3], classes = c.out[1].shape()[1];
  const MixDraw draw = mix_draw(mix_params(c.attrs), c.ctx.step, static_cast<int>(h), static_cast<int>(w));
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* x = c.in[0].as<T>();
    T* y = c.out[0].as<T>();
    c.ctx.pool->ranges(n * h, 16, [&](int64_t begin, int64_t end, int) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t i = r / h, row = r % h;
        const T *own = x + r * line, *other = x + ((n - 1 - i) * h + row) * line;
        T* to = y + r * line;
        // Columns of the box as element offsets; outside of its rows none.
        const bool inside = row >= draw.top && row < draw.bottom;
        const int64_t left = inside ? draw.left * s[3] : 0, right = inside ? draw.right * s[3] : 0;
        const float a = draw.weight;
        for (int64_t k = 0; k < line; ++k)
          to[k] = from_float<T>(a * to_float(own[k]) + (1 - a) * to_float(other[k]));
        for (int64_t k = left; k < right; ++k) to[k] = other[k];
      }
    });
  });
  const int32_t* labels = c.in[1].dtype() == DType::i32 ? c.in[1].as<int32_t>() : nullptr;
  const float* soft = labels ? nullptr : c.in[1].as<float>();
  auto target = [&](int64_t image, int64_t k) {
    return labels ? (labels[image] == k ? 1.f : 0.f) : soft[image * classes + k];
  };
  for (int64_t i = 0; i < n; ++i)
    for (int64_t k = 0; k < classes; ++k)
      t[i * classes + k] = draw.lambda * target(i, k) + (1.f - draw.lambda) * target(n - 1 - i, k);
}

}  // namespace gm::GM_CPU_NS
