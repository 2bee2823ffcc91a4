// The ops whose kernels meet the most barriers, under the race check: with a barrier missing, the bits may be
// right in every order of threads that the conformance tests try.
#include <gtest/gtest.h>

#include "kernels/common/simt_control.h"
#include "tests/fused_mbconv_block.h"
#include "tests/op_harness.h"

namespace gm::test {
namespace {

constexpr int64_t kSmall = 5000;  // elements of the first input: every access is looked up

struct RaceCheck {
  RaceCheck() { simt::check_races(true); }
  ~RaceCheck() { simt::check_races(false); }
};

class OpRace : public testing::TestWithParam<const char*> {
  RaceCheck check_;
};

TEST_P(OpRace, HasNone) {
  const OpDef& op = find_op(GetParam());
  const auto device = open_device("simt");
  const uint64_t before = simt::checked_accesses();
  int ran = 0;
  for (const OpCase& c : op.cases()) {
    if (c.large || c.in[0].spec.shape.numel() > kSmall) continue;
    SCOPED_TRACE(case_name(op, c));
    EXPECT_NO_THROW(run(*device, op, c, make_data(op, c), false));
    simt::check_races(true);  // forgets what it has seen
    ++ran;
    if (HasFailure()) break;
  }
  EXPECT_GT(ran, 4);
  EXPECT_GT(simt::checked_accesses(), before) << "the op's kernels are not the instrumented ones";
}
INSTANTIATE_TEST_SUITE_P(Ops, OpRace,
                         testing::Values("batch_norm_act", "conv2d", "conv_bn_act", "depthwise_conv2d",
                                         "depthwise_bn_se", "depthwise_se", "channel_scale_conv2d", "mbconv",
                                         "fused_mbconv"),
                         [](const auto& info) { return std::string(info.param); });

// Small blocks are cut into tiles of one warp: here those of more, whose barriers have more to do.
TEST(FusedMbconvRace, HasNoneWithSeveralWarps) {
  const RaceCheck check;
  const FusedBlock b(fused_block(1, 12, 24, 104, 24));
  int ran = 0;
  for (const FusedMbconvTiles& t : fused_mbconv_cuts(b.s)) {
    if (t.warps() < 3) continue;
    Direct d("simt");
    EXPECT_NO_THROW(b.run(d, [&](const OpCall& call) { simt_dev::fused_mbconv_planned(call, t); }));
    simt::check_races(true);
    ++ran;
  }
  EXPECT_GE(ran, 2);
}

}  // namespace
}  // namespace gm::test
