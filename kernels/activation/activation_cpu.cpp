#include "kernels/activation/activation.h"
#include "kernels/common/dispatch.h"
#include "kernels/common/op.h"
#include "kernels/common/parallel.h"
#include "kernels/common/vmath.h"

namespace gm::GM_CPU_NS {

void activation_forward(const OpCall& c) {
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* x = c.in[0].as<T>();
    T* y = c.out[0].as<T>();
    act_switch(act_of(c.attrs), [&](auto act) {
      c.ctx.pool->ranges(c.in[0].numel(), 16384, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) y[i] = from_float<T>(act_value<act.value>(to_float(x[i])));
      });
    });
  });
}

void activation_backward(const OpCall& c) {
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T *x = c.in[0].as<T>(), *dy = c.dout[0].as<T>();
    T* dx = c.din[0].view.as<T>();
    const bool accumulate = c.din[0].mode == GradMode::accumulate;
    act_switch(act_of(c.attrs), [&](auto act) {
      c.ctx.pool->ranges(c.in[0].numel(), 16384, [&](int64_t begin, int64_t end, int) {
        if (accumulate)
          for (int64_t i = begin; i < end; ++i)
            dx[i] = from_float<T>(to_float(dx[i]) + to_float(dy[i]) * act_slope<act.value>(to_float(x[i])));
        else
          for (int64_t i = begin; i < end; ++i)
            dx[i] = from_float<T>(to_float(dy[i]) * act_slope<act.value>(to_float(x[i])));
      });
    });
  });
}

}  // namespace gm::GM_CPU_NS
