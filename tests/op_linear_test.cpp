// Batches larger than a training step has: the CPU walks their gradients in blocks of rows.
#include <gtest/gtest.h>

#include "tests/op_harness.h"

namespace gm::test {

TEST(Linear, GradientsOfALargeBatchAreThoseOfAllItsRows) {
  auto device = open_device("cpu");
  const OpDef& op = find_op("linear");
  for (DType t : {DType::f32, DType::bf16}) {
    const OpCase c{.in = {{{{401, 37}, t}}, {{{11, 37}, t}}, {{{11}, DType::f32}}}};
    const CaseData data = make_data(op, c);
    const Result got = run(*device, op, c, data, false), want = run_reference(op, c, data, false);
    for (int i : {0, 1, 2}) expect_close(got.din[i], want.din[i], tolerance_of(c), case_name(op, c));
  }
}

}  // namespace gm::test
