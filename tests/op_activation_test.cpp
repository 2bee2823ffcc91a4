// Activations far from zero, and how exact they are on a card: f32 tensors by expf and a division, bf16 ones
// by the approximating units.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/activation/activation.h"
#include "tests/op_harness.h"

namespace gm::test {
namespace {

// At -80 the approximation's rounding of x log2(e) alone costs 6e-6, which no tolerance relative to a whole
// tensor sees.
TEST(ActivationF32, EveryElementKeepsItsDigits) {
  constexpr int64_t kElements = 1601;
  for (Act act : {Act::silu, Act::sigmoid}) {
    const OpDef& op = find_op("activation");
    const OpCase c{.attrs = act_attrs(act), .in = {{{{kElements}, DType::f32}}}};
    CaseData data = make_data(op, c);
    for (int64_t i = 0; i < kElements; ++i) data.in_values[0][i] = -80 + 0.1 * static_cast<double>(i);
    for (double& x : data.in_values[0]) x = static_cast<float>(x);
    auto device = open_device("simt");
    const std::vector<double> got = run(*device, op, c, data, false).out[0],
                              want = run_reference(op, c, data, false).out[0];
    for (int64_t i = 0; i < kElements; ++i)
      ASSERT_LE(std::abs(got[i] - want[i]), 5e-7 * std::abs(want[i])) << data.in_values[0][i];
  }
}

// Where exp leaves the range of a float, and at the kinks, where the slope is 0 as the references have it.
TEST(Activation, FarOutAndAtKinks) {
  const std::vector<double> x{-10000, -200, -104, -89, -88, 0, 6, 88, 89, 104, 200, 10000};
  for (DType t : {DType::f32, DType::bf16})
    for (Act act : {Act::silu, Act::sigmoid, Act::relu, Act::relu6}) {
      const OpDef& op = find_op("activation");
      const OpCase c{.attrs = act_attrs(act), .in = {{{{static_cast<int64_t>(x.size())}, t}}}};
      CaseData data = make_data(op, c);
      data.in_values[0] = x;
      for (double& v : data.in_values[0]) v = t == DType::bf16 ? to_float(to_bf16(static_cast<float>(v))) : v;
      std::ranges::fill(data.dout_values[0], 1.);
      const Result want = run_reference(op, c, data, false);
      for (const char* name : {"cpu", "simt"}) {
        const Result got = run(*open_device(name), op, c, data, false);
        for (size_t i = 0; i < x.size(); ++i) {
          const double digits = t == DType::bf16 ? 1. / 256 : 1e-6;
          EXPECT_NEAR(got.out[0][i], want.out[0][i], digits * std::abs(want.out[0][i]) + 1e-30)
              << name << " " << case_name(op, c) << " at " << x[i];
          EXPECT_NEAR(got.din[0][i], want.din[0][i], digits)
              << name << " " << case_name(op, c) << " at " << x[i];
        }
      }
    }
}

}  // namespace
}  // namespace gm::test
