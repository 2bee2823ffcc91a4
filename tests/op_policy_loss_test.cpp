// Logits that no softmax can take as they are: exp of 88.8 is no float.
#include <gtest/gtest.h>

#include "tests/op_harness.h"

namespace gm::test {

TEST(PolicyLoss, LargeLogitsAreServed) {
  const OpDef& op = find_op("policy_loss");
  const OpCase c{.attrs = {{"entropy_weight", 0.5}},
                 .in = {{{{9, 5}, DType::f32}}, {{{9}, DType::i32}, Fill::labels}, {{{9}, DType::f32}}}};
  for (double shift : {-1000., 1000.}) {
    CaseData data = make_data(op, c);
    for (double& z : data.in_values[0]) z = static_cast<float>(z + shift);
    const Result want = run_reference(op, c, data, false);
    for (const char* name : {"cpu", "simt"}) {
      const Result got = run(*open_device(name), op, c, data, false);
      expect_close(got.out[0], want.out[0], 1e-3, name);  // of 1000 a float keeps 6e-5
      expect_close(got.din[0], want.din[0], 1e-3, name);
    }
  }
}

}  // namespace gm::test
