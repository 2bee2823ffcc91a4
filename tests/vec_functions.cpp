// Compiled once for each instruction set, as the CPU kernels are. Nothing here may leave a function that the
// linker would share with code for other sets.
#include "tests/vec_functions.h"

#include "kernels/common/vec_cpu.h"

namespace gm::GM_CPU_NS {
namespace {

template <VecF (*F)(VecF)>
void unary(const float* in, float* out) {
  store(out, F(load(in)));
}
VecF relu_slope(VecF x) { return act_slope<Act::relu>(x); }
VecF relu6_slope(VecF x) { return act_slope<Act::relu6>(x); }
VecF inverse(VecF x) { return reciprocal(x); }
VecF sigmoid(VecF x) { return fast_sigmoid(x); }

void narrowed(const float* in, bf16* out) { store(out, load(in)); }
void widened(const bf16* in, float* out) { store(out, load(in)); }
template <class T>
void part_loaded(const T* in, int n, float* out) {
  store(out, load_part(in, n));
}
template <class T>
void part_stored(const float* in, int n, T* out) {
  store_part(out, load(in), n);
}
void larger(const float* a, const float* b, float* out) { store(out, vmax(load(a), load(b))); }
void smaller(const float* a, const float* b, float* out) { store(out, vmin(load(a), load(b))); }
void strips(int64_t channels, test::VecFunctions::Strip f, void* context) {
  for_strips<3>(channels, [&](auto registers, auto part, int64_t first, int count) {
    f(context, registers.value, part.value, first, count);
  });
}

}  // namespace

const test::VecFunctions& vec_functions() {
  static constexpr test::VecFunctions table = {kLanes,
                                               narrowed,
                                               widened,
                                               part_loaded<float>,
                                               part_loaded<bf16>,
                                               part_stored<float>,
                                               part_stored<bf16>,
                                               larger,
                                               smaller,
                                               unary<inverse>,
                                               unary<sigmoid>,
                                               unary<relu_slope>,
                                               unary<relu6_slope>,
                                               strips};
  return table;
}

}  // namespace gm::GM_CPU_NS
