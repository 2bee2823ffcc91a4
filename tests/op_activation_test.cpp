// How exact activations are on a card: f32 tensors by expf and a division, bf16 ones by the approximating
// units.
#include <gtest/gtest.h>

#include <cmath>

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

}  // namespace
}  // namespace gm::test
