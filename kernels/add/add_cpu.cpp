#include <cstring>

#include "kernels/add/add.h"
#include "kernels/common/dispatch.h"
#include "kernels/common/parallel.h"

namespace gm::GM_CPU_NS {

void add_forward(const OpCall& c) {
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T *a = c.in[0].as<T>(), *b = c.in[1].as<T>();
    T* y = c.out[0].as<T>();
    c.ctx.pool->ranges(c.in[0].numel(), 16384, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) y[i] = from_float<T>(to_float(a[i]) + to_float(b[i]));
    });
  });
}

void add_backward(const OpCall& c) {
  float_switch(c.dout[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* dy = c.dout[0].as<T>();
    // Both gradients of a piece while dy is still in the cache.
    c.ctx.pool->ranges(c.dout[0].numel(), 16384, [&](int64_t begin, int64_t end, int) {
      for (const GradView& g : c.din) {
        if (!add_writes(g, c.dout[0])) continue;
        T* d = g.view.as<T>();
        if (g.mode == GradMode::accumulate)
          for (int64_t i = begin; i < end; ++i) d[i] = from_float<T>(to_float(d[i]) + to_float(dy[i]));
        else
          std::memcpy(d + begin, dy + begin, (end - begin) * sizeof(T));
      }
    });
  });
}

}  // namespace gm::GM_CPU_NS
