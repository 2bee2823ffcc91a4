// The register functions of the CPU kernels, element by element: a tolerance relative to a whole tensor sees
// neither ties of rounding, nor kinks, nor the digits of small values. For every instruction set of this
// processor.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/common/backends.h"
#include "tests/cpu_functions.h"

namespace gm::test {

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr int kMost = 16;  // lanes

class VecCpu : public testing::TestWithParam<std::string> {
 protected:
  // The first lane of a function whose arguments are the same in all lanes.
  static float lane(void (*f)(const float*, float*), float x) {
    float in[kMost], out[kMost];
    for (float& v : in) v = x;
    f(in, out);
    return out[0];
  }
  static float lane(void (*f)(const float*, const float*, float*), float x, float y) {
    float a[kMost], b[kMost], out[kMost];
    for (int i = 0; i < kMost; ++i) a[i] = x, b[i] = y;
    f(a, b, out);
    return out[0];
  }
  const VecFunctions& vec = cpu_functions(GetParam()).vec;
};

}  // namespace

TEST_P(VecCpu, NarrowRoundsToTheBitsOfToBf16) {
  for (uint32_t u :
       {0x3f800000u, 0x3f807fffu, 0x3f808000u, 0x3f808001u, 0x3f818000u, 0xbf808000u, 0xbf818000u,
        0x00008000u, 0x7f7fffffu, 0x7f800000u, 0xff800000u, 0x7f800001u, 0x7fffffffu, 0xffc00000u}) {
    float in[kMost];
    for (float& v : in) v = std::bit_cast<float>(u);
    bf16 got[kMost];
    vec.narrow(in, got);
    for (int i = 0; i < vec.lanes; ++i)
      EXPECT_EQ(got[i].bits, to_bf16(std::bit_cast<float>(u)).bits) << std::hex << u;
  }
}

TEST_P(VecCpu, ARowsLastChannelsAreLoadedAndStoredAlone) {
  for (int n = 1; n < vec.lanes; ++n) {
    float in[kMost], loaded[kMost], loaded_half[kMost], out[kMost];
    bf16 half[kMost], out_half[kMost];
    for (int i = 0; i < kMost; ++i) {
      in[i] = static_cast<float>(i + 1);
      half[i] = to_bf16(in[i]);
      out[i] = -1;
      out_half[i] = to_bf16(-1);
    }
    vec.load_part(in, n, loaded);
    vec.load_part_bf16(half, n, loaded_half);
    vec.store_part(in, n, out);
    vec.store_part_bf16(in, n, out_half);
    for (int i = 0; i < vec.lanes; ++i) {
      SCOPED_TRACE(std::to_string(i) + " of " + std::to_string(n));
      EXPECT_EQ(loaded[i], i < n ? in[i] : 0);
      EXPECT_EQ(loaded_half[i], i < n ? in[i] : 0);
      EXPECT_EQ(out[i], i < n ? in[i] : -1);
      EXPECT_EQ(to_float(out_half[i]), i < n ? in[i] : -1);
    }
  }
}

TEST_P(VecCpu, LanesKeepTheirPlaces) {
  float in[kMost], out[kMost], descending[kMost];
  bf16 half[kMost];
  for (int i = 0; i < kMost; ++i)
    in[i] = static_cast<float>(i + 1), descending[i] = static_cast<float>(8 - i);
  vec.narrow(in, half);
  vec.widen(half, out);
  for (int i = 0; i < vec.lanes; ++i) EXPECT_EQ(out[i], in[i]);
  vec.max(in, descending, out);
  for (int i = 0; i < vec.lanes; ++i) EXPECT_EQ(out[i], std::max(in[i], descending[i]));
  vec.min(in, descending, out);
  for (int i = 0; i < vec.lanes; ++i) EXPECT_EQ(out[i], std::min(in[i], descending[i]));
}

// Where one is no number the second is the result: activations and fast_sigmoid order their arguments by it.
TEST_P(VecCpu, MaximumAndMinimumOfNanAreTheSecond) {
  for (auto f : {vec.max, vec.min}) {
    EXPECT_EQ(lane(f, kNan, 3), 3);
    EXPECT_TRUE(std::isnan(lane(f, 3, kNan)));
  }
}

TEST_P(VecCpu, ReciprocalKeepsItsDigits) {
  for (float x = 1.1e-37f; x < 8e37f; x *= 1.37f) {
    EXPECT_NEAR(lane(vec.reciprocal, x) * static_cast<double>(x), 1, 2.4e-7) << x;
    EXPECT_EQ(lane(vec.reciprocal, -x), -lane(vec.reciprocal, x)) << x;
  }
}

TEST_P(VecCpu, SigmoidKeepsTheDigitsOfEveryElement) {
  for (double x = -80; x <= 80; x += 0.0625) {
    const double want = 1 / (1 + std::exp(-x)), digits = std::abs(x) < 20 ? 1e-6 : 1e-5;
    EXPECT_NEAR(lane(vec.sigmoid, static_cast<float>(x)), want, digits * want) << x;
  }
  EXPECT_EQ(lane(vec.sigmoid, 1000), 1);
  EXPECT_LT(lane(vec.sigmoid, -1000), 1e-37f);
  EXPECT_TRUE(std::isnan(lane(vec.sigmoid, kNan)));
}

TEST_P(VecCpu, KinksHaveNoSlope) {
  for (const auto& [x, relu, relu6] :
       {std::tuple{-1.f, 0.f, 0.f}, {0.f, 0.f, 0.f}, {1.f, 1.f, 1.f}, {6.f, 1.f, 0.f}, {7.f, 1.f, 0.f}}) {
    EXPECT_EQ(lane(vec.relu_slope, x), relu) << x;
    EXPECT_EQ(lane(vec.relu6_slope, x), relu6) << x;
  }
}

TEST_P(VecCpu, StripsCoverEveryChannelOnce) {
  struct Seen {
    int lanes;
    std::vector<int> channels;
  };
  for (int64_t channels = 1; channels <= 9 * vec.lanes + 1; ++channels) {
    Seen seen{vec.lanes, std::vector<int>(static_cast<size_t>(channels))};
    vec.strips(
        channels,
        [](void* context, int registers, bool part, int64_t first, int count) {
          auto& s = *static_cast<Seen*>(context);
          EXPECT_LE(registers, 3);
          EXPECT_EQ(part, count < s.lanes);
          const int64_t end = first + (registers - 1) * s.lanes + count;
          ASSERT_LE(end, static_cast<int64_t>(s.channels.size()));
          for (int64_t c = first; c < end; ++c) ++s.channels[static_cast<size_t>(c)];
        },
        &seen);
    EXPECT_EQ(seen.channels, std::vector<int>(seen.channels.size(), 1)) << channels;
  }
}

INSTANTIATE_TEST_SUITE_P(InstructionSets, VecCpu, testing::ValuesIn(cpu_kernels_names()),
                         [](const auto& info) { return info.param; });

}  // namespace gm::test
