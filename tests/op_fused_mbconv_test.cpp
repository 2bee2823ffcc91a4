// Whole Fused-MBConv blocks as one kernel: which ones it takes, how they are cut, and what it computes.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <set>
#include <vector>

#include "kernels/common/card_limits.h"
#include "kernels/conv2d/conv2d_ref.h"
#include "tests/fused_mbconv_block.h"

namespace gm::test {
namespace {

std::string text(const FusedMbconvShape& s) {
  return std::to_string(s.expand.h) + " px, " + std::to_string(s.expand.c) + " -> " +
         std::to_string(s.expand.k) + " -> " + std::to_string(s.project.k) + ", kernel " +
         std::to_string(s.expand.kernel) + ", stride " + std::to_string(s.expand.stride);
}
bool takes(const FusedMbconvShape& s) { return fused_mbconv_tiles(s).has_value(); }

TEST(FusedMbconv, TakesWhatItIsFor) {
  const FusedMbconvShape s = fused_block(256, 56, 48, 192, 48);
  EXPECT_TRUE(takes(s));
  EXPECT_TRUE(takes(fused_block(256, 112, 24, 96, 48, 3, 2)));
  EXPECT_TRUE(takes(fused_block(256, 56, 48, 192, 64, 3, 2)));
  EXPECT_TRUE(takes(fused_block(256, 28, 64, 256, 64)));
  EXPECT_TRUE(takes(fused_block(1, 1, 8, 8, 8)));
  EXPECT_FALSE(takes(fused_block(1, 28, 72, 256, 64))) << "more channels than a step holds";
  EXPECT_FALSE(takes(fused_block(1, 28, 64, 256, 72))) << "more sums than registers";
  EXPECT_FALSE(takes(fused_block(1, 28, 20, 64, 24)));
  EXPECT_FALSE(takes(fused_block(1, 28, 24, 100, 24)));
  EXPECT_FALSE(takes(fused_block(1, 28, 24, 96, 20)));
  EXPECT_FALSE(takes(fused_block(1, 4096, 64, 256, 64)))
      << "a window of three such rows is more than shared memory";
  FusedMbconvShape f32 = s, pointwise = s, padded = s, strided = fused_block(1, 2, 8, 8, 8, 3, 2);
  f32.expand.dtype = DType::f32, pointwise.expand.kernel = 1, padded.expand.pad_left = 3;
  strided.residual = true;
  for (const FusedMbconvShape& other : {f32, pointwise, padded, strided}) EXPECT_FALSE(takes(other));
}

// All that the kernel takes for granted.
void check_tiles(const FusedMbconvShape& s, const FusedMbconvTiles& t) {
  ASSERT_TRUE((t.wide == 6 && t.narrow == 6) || t.wide == 8);  // what is compiled
  ASSERT_TRUE(t.narrow == 6 || t.narrow == 8);
  ASSERT_GE(t.steps * 16, t.c);
  ASSERT_LT((t.steps - 1) * 16, t.c);
  ASSERT_LE(t.steps, 4);
  ASSERT_GE(t.narrow * 8, t.k);
  ASSERT_GE(t.chunks * t.wide * 8, t.e);
  ASSERT_LT((t.chunks - 1) * t.wide * 8, t.e);
  const int all = t.oh * t.ow;
  ASSERT_GE(t.tiles * t.pixels, all);
  ASSERT_LT((t.tiles - 1) * t.pixels, all);
  ASSERT_GE(t.warps(), 1);
  ASSERT_LE(t.warps(), kFusedWarps);
  ASSERT_LE(t.shared_bytes(), kFusedShared);
  ASSERT_LE(kFusedShared, kSmallestShared);
  ASSERT_EQ((t.ow - 1) * t.stride + t.kernel, t.columns);
  for (int first = 0; first < all; first += t.pixels) {  // every tap of a tile's pixels is in its window
    const int last = std::min(first + t.pixels, all) - 1;
    ASSERT_LE((last / t.ow - first / t.ow) * t.stride + t.kernel, t.rows);
  }
  if (s.residual) ASSERT_LT(s.expand.pad_top, t.kernel);
}

TEST(FusedMbconv, PlansFitEveryShape) {
  int cuts = 0;
  for (int64_t images : {1, 3, 256})
    for (int64_t size : {1, 2, 5, 7, 14, 28, 31, 56, 75, 112})
      for (int64_t c : {8, 16, 24, 40, 48, 64})
        for (int64_t e : {8, 48, 96, 144, 192, 256, 384})
          for (int64_t k : {8, 40, 48, 56, 64})
            for (int kernel : {2, 3, 5})
              for (int stride : {1, 2}) {
                const FusedMbconvShape s = fused_block(images, size, c, e, k, kernel, stride);
                SCOPED_TRACE(text(s));
                for (const FusedMbconvTiles& t : fused_mbconv_cuts(s)) {
                  ++cuts;
                  check_tiles(s, t);
                  if (HasFatalFailure()) return;
                }
              }
  EXPECT_GT(cuts, 50000);
  for (int steps : {1, 2, 3, 4}) check_banks(fused_pitch(steps));
  for (int wide : {6, 8}) check_banks(fused_project_pitch(wide));
}

// The products that the cut asks for beyond those of the block.
TEST(FusedMbconv, WastesLittleInEfficientNetV2S) {
  auto products = [](const FusedMbconvShape& s) {
    const FusedMbconvTiles t = fused_mbconv_tiles(s).value();
    return double(t.tiles * t.warps() * 32) * t.chunks * t.wide * 8 / double(t.oh * t.ow * t.e);
  };
  EXPECT_LE(products(fused_block(256, 112, 24, 96, 48, 3, 2)), 1.02);
  EXPECT_LE(products(fused_block(256, 56, 48, 192, 48)), 1.03);
  EXPECT_LE(products(fused_block(256, 56, 48, 192, 64, 3, 2)), 1.23) << "three rows a tile: more do not fit";
  EXPECT_LE(products(fused_block(256, 28, 64, 256, 64)), 1.15);
}

/// The block with e rounded to bf16 and all else in double.
std::vector<double> expected(const FusedBlock& b) {
  const FusedMbconvShape& s = b.s;
  const int64_t e = s.expand.k, k = s.project.k;
  std::vector<double> wide(static_cast<size_t>(s.expanded_values())), y;
  for (size_t i = 0; i < wide.size(); ++i) wide[i] = b.b_expand[i % static_cast<size_t>(e)];
  ref::conv_products(s.expand, [&](int64_t from, int64_t w, int64_t to) {
    wide[to] += double(to_float(b.x[from])) * to_float(b.w_expand[w]);
  });
  for (double& v : wide) v = to_float(to_bf16(static_cast<float>(v / (1 + std::exp(-v)))));
  for (int64_t p = 0; p < s.expand.out_pixels(); ++p)
    for (int64_t f = 0; f < k; ++f) {
      double sum = b.b_project[f] + (s.residual ? to_float(b.x[p * k + f]) : 0);
      for (int64_t j = 0; j < e; ++j) sum += wide[p * e + j] * to_float(b.w_project[f * e + j]);
      y.push_back(sum);
    }
  return y;
}
// Rounding of e may fall to either side, which moves a result by 2^-9 of one product, all else by less.
void expect_near(const std::vector<bf16>& got, const std::vector<double>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i)
    ASSERT_NEAR(to_float(got[i]), want[i], std::abs(want[i]) / 256 + 4e-3) << i;
}

// Every compiled number of steps and width, pixels at every edge; on every card that there is.
const FusedMbconvShape kBlocks[] = {
    fused_block(1, 3, 8, 24, 8),          fused_block(1, 7, 16, 64, 24, 3, 2),   // one step; 6 6, 8 6
    fused_block(2, 9, 16, 104, 56),       fused_block(1, 12, 24, 96, 48, 3, 2),  // 8 8; two steps
    fused_block(1, 11, 32, 64, 32, 5),    fused_block(1, 9, 24, 64, 56),
    fused_block(1, 13, 48, 192, 48),      fused_block(1, 10, 48, 48, 24),  // three
    fused_block(1, 14, 40, 72, 64, 3, 2), fused_block(3, 7, 64, 128, 64),
    fused_block(1, 9, 64, 64, 48),        fused_block(1, 10, 56, 48, 24),  // four
    fused_block(2, 5, 64, 136, 40, 2),    fused_block(1, 9, 8, 40, 16, 7),
    fused_block(1, 13, 16, 48, 8, 3, 4)};

TEST(FusedMbconv, TheTestsRunEveryKernelThatIsCompiled) {
  std::set<std::array<int, 3>> kernels;
  for (const FusedMbconvShape& s : kBlocks) {
    const auto t = fused_mbconv_tiles(s);
    ASSERT_TRUE(t) << text(s);
    kernels.insert({t->steps, t->wide, t->narrow});
  }
  EXPECT_EQ(kernels.size(), 12u);
}

TEST(FusedMbconv, ResultsAreThoseOfTheBlock) {
  for (const std::string& device : card_backends())
    for (const FusedMbconvShape& s : kBlocks) {
      SCOPED_TRACE(device + " " + text(s));
      const FusedBlock b(s);
      Direct d(device, true);
      expect_near(b.run(d), expected(b));
    }
}

// Tiles of one to four warps, of whole rows and of pixels that rows cut.
TEST(FusedMbconv, EveryCutGivesTheSameBits) {
  std::set<int> warps;
  bool rows_cut = false;
  for (const FusedMbconvShape& s : {fused_block(1, 13, 24, 56, 24), fused_block(2, 23, 8, 32, 16, 3, 2),
                                    fused_block(1, 12, 48, 48, 48), fused_block(1, 18, 16, 48, 8, 5)}) {
    SCOPED_TRACE(text(s));
    const FusedBlock b(s);
    std::vector<bf16> first;
    for (const FusedMbconvTiles& t : fused_mbconv_cuts(s)) {
      SCOPED_TRACE(std::to_string(t.pixels) + " pixels a tile");
      Direct d("simt");
      const std::vector<bf16> y =
          b.run(d, [&](const OpCall& call) { simt_dev::fused_mbconv_planned(call, t); });
      if (first.empty()) expect_near(first = y, expected(b));
      ASSERT_EQ(std::memcmp(y.data(), first.data(), y.size() * sizeof(bf16)), 0);
      warps.insert(t.warps());
      rows_cut |= t.tiles > 1 && t.pixels % t.ow != 0;
    }
  }
  EXPECT_EQ(warps.size(), static_cast<size_t>(kFusedWarps));
  EXPECT_TRUE(rows_cut);
}

}  // namespace
}  // namespace gm::test
