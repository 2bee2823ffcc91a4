// The register functions of the CPU kernels, element by element: a tolerance relative to a whole tensor sees
// neither ties of rounding, nor kinks, nor the digits of small values.
#define GM_CPU_NS cpu_of_vec_test
#include "kernels/common/vec_cpu.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

namespace gm {
namespace {

using namespace cpu_of_vec_test;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST(VecCpu, NarrowRoundsToTheBitsOfToBf16) {
  for (uint32_t u :
       {0x3f800000u, 0x3f807fffu, 0x3f808000u, 0x3f808001u, 0x3f818000u, 0xbf808000u, 0xbf818000u,
        0x00008000u, 0x7f7fffffu, 0x7f800000u, 0xff800000u, 0x7f800001u, 0x7fffffffu, 0xffc00000u}) {
    bf16 got[kLanes];
    store(got, (VecF)(VecU{} + u));
    for (const bf16& b : got) EXPECT_EQ(b.bits, to_bf16(std::bit_cast<float>(u)).bits) << std::hex << u;
  }
}

TEST(VecCpu, SigmoidKeepsTheDigitsOfEveryElement) {
  for (double x = -80; x <= 80; x += 0.0625) {
    const double want = 1 / (1 + std::exp(-x)), digits = std::abs(x) < 20 ? 1e-6 : 1e-5;
    EXPECT_NEAR(fast_sigmoid(splat(static_cast<float>(x)))[0], want, digits * want) << x;
  }
  EXPECT_EQ(fast_sigmoid(splat(1000))[0], 1);
  EXPECT_LT(fast_sigmoid(splat(-1000))[0], 1e-37f);
  EXPECT_TRUE(std::isnan(fast_sigmoid(splat(kNan))[0]));
}

TEST(VecCpu, KinksHaveNoSlope) {
  for (const auto& [x, relu, relu6] :
       {std::tuple{-1.f, 0.f, 0.f}, {0.f, 0.f, 0.f}, {1.f, 1.f, 1.f}, {6.f, 1.f, 0.f}, {7.f, 1.f, 0.f}}) {
    EXPECT_EQ(act_slope<Act::relu>(splat(x))[0], relu) << x;
    EXPECT_EQ(act_slope<Act::relu6>(splat(x))[0], relu6) << x;
  }
}

TEST(VecCpu, StripsCoverEveryChannelOnce) {
  for (int64_t channels = 1; channels <= 9 * kLanes + 1; ++channels) {
    std::vector<int> seen(static_cast<size_t>(channels));
    for_strips<3>(channels, [&](auto registers, auto part, int64_t first, int count) {
      EXPECT_LE(registers.value, 3);
      EXPECT_EQ(part.value, count < kLanes);
      const int64_t end = first + (registers.value - 1) * kLanes + count;
      ASSERT_LE(end, channels);
      for (int64_t c = first; c < end; ++c) ++seen[c];
    });
    EXPECT_EQ(seen, std::vector<int>(seen.size(), 1)) << channels;
  }
}

}  // namespace
}  // namespace gm
