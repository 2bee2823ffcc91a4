#include "kernels/activation/activation.h"
#include "kernels/common/dispatch.h"
#include "kernels/common/op.h"
#include "kernels/common/parallel.h"
#include "kernels/common/vec_cpu.h"

namespace gm::GM_CPU_NS {

namespace {
/// lanes(part, i, count): the elements from i on, a register or the rest of one.
template <class Lanes>
void for_registers(const Context& ctx, int64_t n, Lanes lanes) {
  ctx.pool->ranges(n, 16384, [&](int64_t begin, int64_t end, int) {
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) lanes(std::false_type{}, i, kLanes);
    if (i < end) lanes(std::true_type{}, i, static_cast<int>(end - i));
  });
}
}  // namespace

void activation_forward(const OpCall& c) {
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* x = c.in[0].as<T>();
    T* y = c.out[0].as<T>();
    act_switch(act_of(c.attrs), [&](auto act) {
      for_registers(c.ctx, c.in[0].numel(), [&](auto part, int64_t i, int count) {
        constexpr bool Part = decltype(part)::value;
        store_n<Part>(y + i, act_value<act.value>(load_n<Part>(x + i, count)), count);
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
      for_registers(c.ctx, c.in[0].numel(), [&](auto part, int64_t i, int count) {
        constexpr bool Part = decltype(part)::value;
        VecF d = load_n<Part>(dy + i, count) * act_slope<act.value>(load_n<Part>(x + i, count));
        if (accumulate) d += load_n<Part>(dx + i, count);
        store_n<Part>(dx + i, d, count);
      });
    });
  });
}

}  // namespace gm::GM_CPU_NS
