// Bias, activation and residual of an inference convolution, on a chunk that is still in cache.
#include "kernels/common/dispatch.h"
#include "kernels/common/vec_cpu.h"
#include "kernels/conv2d/conv2d_cpu.h"

namespace gm::GM_CPU_NS {

void conv_epilogue(const View& y, int64_t begin, int64_t pixels, const float* bias, Act act,
                   const View& residual) {
  if (!bias && act == Act::none && !residual) return;
  const int64_t k = y.shape().channels();
  float_switch(y.dtype(), [&](auto zero) {
    using T = decltype(zero);
    T* rows = y.as<T>() + begin * k;
    const T* added = residual ? residual.as<T>() + begin * k : nullptr;
    act_switch(act, [&](auto a) {
      // SIMD registers by hand: left to itself the compiler calls the sigmoid element by element.
      auto lanes = [&](auto part, int64_t i, int count) {
        constexpr bool Part = decltype(part)::value;
        VecF z = load_n<Part>(rows + i, count);
        if (bias) z += load_n<Part>(bias + i, count);
        z = act_value<a.value>(z);
        if (added) z += load_n<Part>(added + i, count);
        store_n<Part>(rows + i, z, count);
      };
      const int64_t full = k / kLanes * kLanes;
      for (int64_t p = 0; p < pixels; ++p, rows += k) {
        for (int64_t i = 0; i < full; i += kLanes) lanes(std::false_type{}, i, kLanes);
        if (full < k) lanes(std::true_type{}, full, static_cast<int>(k - full));
        if (added) added += k;
      }
    });
  });
}

}  // namespace gm::GM_CPU_NS
