// Maxima over maps of NaN, as a training run that diverges has them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/global_pool/global_pool.h"
#include "tests/op_direct.h"

namespace gm::test {
namespace {

// (1, 3, 2, 2): one channel of NaN alone, one with a number among them.
std::vector<float> diverged() {
  std::vector<float> x(12, NAN);
  x[2 * 4 + 1] = -1;
  return x;
}

TEST(OpPool, TheGradientOfAMaximumOfNaNStaysInItsImage) {
  const Attrs attrs{{"kind", PoolKind::maximum}};
  const Shape image{1, 3, 2, 2}, pooled{1, 2};
  for (const std::string& name : backends()) {
    Direct d(name);
    const View x = d.put(diverged(), image), y = d.space({pooled, DType::f32}),
               at = d.space({pooled, DType::i32});
    d.forward("global_pool", attrs, {x}, {y}, {at});
    for (int32_t p : d.get<int32_t>(at)) EXPECT_TRUE(p >= 0 && p < 6) << name << " " << p;
    // Behind the gradient of the image lies another tensor.
    const View both = d.put(std::vector<float>(24, 7), {2, 3, 2, 2});
    d.backward("global_pool", attrs, {x}, {at}, {d.put<float>({1, 1}, pooled)},
               {{{both.data, {image, DType::f32}}, GradMode::accumulate}});
    const std::vector<float> got = d.get<float>(both);
    EXPECT_EQ(std::count(got.begin() + 12, got.end(), 7.f), 12) << name;
  }
}

}  // namespace
}  // namespace gm::test
