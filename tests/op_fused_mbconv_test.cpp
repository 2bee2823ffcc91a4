// Whole Fused-MBConv blocks as one kernel: which ones it takes, how they are cut, and what it computes.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/common/shared_limits.h"
#include "kernels/conv2d/conv2d_ref.h"
#include "kernels/fused_mbconv/fused_mbconv_tiles.h"
#include "tests/op_direct.h"
#include "tests/pixel_products.h"

namespace gm::test {
namespace {

/// With TensorFlow's SAME padding; a residual where it fits.
FusedMbconvShape block(int64_t images, int64_t size, int64_t c, int64_t e, int64_t k, int kernel = 3,
                       int stride = 1) {
  const int64_t out = (size + stride - 1) / stride,
                pad = std::max<int64_t>(0, (out - 1) * stride + kernel - size);
  FusedMbconvShape s{.residual = stride == 1 && c == k, .act = Act::silu};
  s.expand = {.n = images,
              .h = size,
              .w = size,
              .c = c,
              .k = e,
              .kernel = kernel,
              .stride = stride,
              .pad_top = pad / 2,
              .pad_left = pad / 2,
              .pad_bottom = pad - pad / 2,
              .pad_right = pad - pad / 2,
              .oh = out,
              .ow = out,
              .dtype = DType::bf16};
  s.project = pixel_product(images * out * out, e, k);
  return s;
}
bool takes(const FusedMbconvShape& s) {
  FusedMbconvTiles t;
  return fused_mbconv_tiles(s, t);
}

TEST(FusedMbconv, TakesWhatItIsFor) {
  const FusedMbconvShape s = block(256, 56, 48, 192, 48);
  EXPECT_TRUE(takes(s));
  EXPECT_TRUE(takes(block(256, 112, 24, 96, 48, 3, 2)));
  EXPECT_TRUE(takes(block(256, 56, 48, 192, 64, 3, 2)));
  EXPECT_TRUE(takes(block(256, 28, 64, 256, 64)));
  EXPECT_TRUE(takes(block(1, 1, 8, 8, 8)));
  EXPECT_FALSE(takes(block(1, 28, 72, 256, 64))) << "more channels than a step holds";
  EXPECT_FALSE(takes(block(1, 28, 64, 256, 72))) << "more sums than registers";
  EXPECT_FALSE(takes(block(1, 28, 20, 64, 24)));
  EXPECT_FALSE(takes(block(1, 28, 24, 100, 24)));
  EXPECT_FALSE(takes(block(1, 28, 24, 96, 20)));
  EXPECT_FALSE(takes(block(1, 4096, 64, 256, 64)))
      << "a window of three such rows is more than shared memory";
  FusedMbconvShape f32 = s, pointwise = s, padded = s;
  f32.expand.dtype = DType::f32, pointwise.expand.kernel = 1, padded.expand.pad_left = 3;
  for (const FusedMbconvShape& other : {f32, pointwise, padded}) EXPECT_FALSE(takes(other));
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
  ASSERT_LT(s.expand.pad_top, t.kernel);
}

TEST(FusedMbconv, PlansFitEveryShape) {
  int taken = 0;
  for (int64_t images : {1, 3, 256})
    for (int64_t size : {1, 2, 5, 7, 14, 28, 31, 56, 75, 112})
      for (int64_t c : {8, 16, 24, 40, 48, 64})
        for (int64_t e : {8, 48, 96, 144, 192, 256, 384})
          for (int64_t k : {8, 40, 48, 56, 64})
            for (int kernel : {2, 3, 5})
              for (int stride : {1, 2}) {
                const FusedMbconvShape s = block(images, size, c, e, k, kernel, stride);
                FusedMbconvTiles t;
                if (!fused_mbconv_tiles(s, t)) continue;
                ++taken;
                SCOPED_TRACE(std::to_string(size) + " px, " + std::to_string(c) + " -> " + std::to_string(e) +
                             " -> " + std::to_string(k) + ", kernel " + std::to_string(kernel) + ", stride " +
                             std::to_string(stride));
                check_tiles(s, t);
                if (HasFatalFailure()) return;
              }
  EXPECT_GT(taken, 10000);
  for (int steps : {1, 2, 3, 4}) check_banks(fused_pitch(steps));
  for (int wide : {6, 8}) check_banks(fused_project_pitch(wide));
}

// The products that the cut asks for beyond those of the block.
TEST(FusedMbconv, WastesLittleInEfficientNetV2S) {
  auto products = [](const FusedMbconvShape& s) {
    FusedMbconvTiles t;
    EXPECT_TRUE(fused_mbconv_tiles(s, t));
    return double(t.tiles * t.warps() * 32) * t.chunks * t.wide * 8 / double(t.oh * t.ow * t.e);
  };
  EXPECT_LE(products(block(256, 112, 24, 96, 48, 3, 2)), 1.02);
  EXPECT_LE(products(block(256, 56, 48, 192, 48)), 1.03);
  EXPECT_LE(products(block(256, 56, 48, 192, 64, 3, 2)), 1.23) << "three rows a tile: more do not fit";
  EXPECT_LE(products(block(256, 28, 64, 256, 64)), 1.15);
}

/// The block with e rounded to bf16 and all else in double.
std::vector<double> expected(const FusedMbconvShape& s, const std::vector<bf16>& x,
                             const std::vector<bf16>& w_expand, const std::vector<float>& b_expand,
                             const std::vector<bf16>& w_project, const std::vector<float>& b_project) {
  const int64_t e = s.expand.k, k = s.project.k;
  std::vector<double> wide(static_cast<size_t>(s.expanded_values())), y;
  for (size_t i = 0; i < wide.size(); ++i) wide[i] = b_expand[i % static_cast<size_t>(e)];
  ref::conv_products(s.expand, [&](int64_t from, int64_t w, int64_t to) {
    wide[to] += double(to_float(x[from])) * to_float(w_expand[w]);
  });
  for (double& v : wide) v = to_float(to_bf16(static_cast<float>(v / (1 + std::exp(-v)))));
  for (int64_t p = 0; p < s.expand.out_pixels(); ++p)
    for (int64_t f = 0; f < k; ++f) {
      double sum = b_project[f] + (s.residual ? to_float(x[p * k + f]) : 0);
      for (int64_t j = 0; j < e; ++j) sum += wide[p * e + j] * to_float(w_project[f * e + j]);
      y.push_back(sum);
    }
  return y;
}

// Every compiled number of steps and width, tiles of one to four warps, rows of pixels that tiles cut, and
// pixels at every edge; on every card that there is. Rounding of e may fall to either side, which moves a
// result by 2^-9 of one product, all else by less.
TEST(FusedMbconv, ResultsAreThoseOfTheBlock) {
  const std::vector<FusedMbconvShape> blocks{block(1, 3, 8, 24, 8),          block(2, 9, 16, 96, 56),
                                             block(1, 12, 24, 96, 48, 3, 2), block(1, 11, 32, 64, 32, 5),
                                             block(1, 13, 48, 192, 48),      block(1, 14, 40, 72, 64, 3, 2),
                                             block(3, 7, 64, 128, 64),       block(1, 10, 56, 48, 24),
                                             block(2, 5, 64, 136, 40, 2),    block(1, 7, 16, 64, 24, 3, 2)};
  for (const std::string& device : card_backends())
    for (const FusedMbconvShape& s : blocks) {
      const ConvGeometry& g = s.expand;
      const int64_t k = s.project.k;
      SCOPED_TRACE(device + " " + std::to_string(g.c) + " -> " + std::to_string(g.k) + " -> " +
                   std::to_string(k));
      const auto x = rounded(noise(1, g.in_pixels() * g.c, 0, 1)),
                 w_expand = rounded(noise(2, g.weights(), 0, 1 / std::sqrt(float(g.taps())))),
                 w_project = rounded(noise(3, k * g.k, 0, 0.2f));
      const auto b_expand = noise(4, g.k, 0, 0.5f), b_project = noise(5, k, 0, 0.5f);
      Direct d(device, true);
      const View y = d.space({{g.n, g.oh, g.ow, k}, DType::bf16});
      d.forward("fused_mbconv",
                {{"kernel", double(g.kernel)},
                 {"stride", double(g.stride)},
                 {"pad_top", double(g.pad_top)},
                 {"pad_left", double(g.pad_left)},
                 {"pad_bottom", double(g.pad_bottom)},
                 {"pad_right", double(g.pad_right)},
                 {"act", double(Act::silu)},
                 {"residual", double(s.residual)}},
                {d.put(x, {g.n, g.h, g.w, g.c}), d.put(w_expand, {g.k, g.kernel, g.kernel, g.c}),
                 d.put(b_expand), d.put(w_project, {k, 1, 1, g.k}), d.put(b_project)},
                {y});
      const auto got = d.get<bf16>(y);
      const auto want = expected(s, x, w_expand, b_expand, w_project, b_project);
      ASSERT_EQ(got.size(), want.size());
      for (size_t i = 0; i < want.size(); ++i)
        ASSERT_NEAR(to_float(got[i]), want[i], std::abs(want[i]) / 256 + 4e-3) << i;
    }
}

}  // namespace
}  // namespace gm::test
