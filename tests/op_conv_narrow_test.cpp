// Convolutions with few channels: which shapes the kernels take and how they cut them.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <set>
#include <vector>

#include "kernels/conv2d/conv2d_narrow.h"
#include "tests/cards.h"
#include "tests/op_direct.h"

namespace gm::test {

namespace {

ConvGeometry geometry(int64_t n, int64_t size, int64_t c, int64_t k, int64_t kernel, int64_t stride,
                      int64_t before = 1, int64_t after = 1) {
  ConvGeometry g{.n = n, .h = size, .w = size + 3, .c = c, .k = k, .kernel = kernel, .stride = stride};
  g.pad_top = g.pad_left = before, g.pad_bottom = g.pad_right = after;
  g.oh = conv_out(g.h, kernel, stride, before, after), g.ow = conv_out(g.w, kernel, stride, before, after);
  g.dtype = DType::bf16;
  return g;
}

// What the kernel takes for granted.
void check(const NarrowConv& p) {
  EXPECT_EQ(8 << p.across, p.tile_w);
  EXPECT_EQ(p.tile_h % 2, 0);
  EXPECT_GE(p.tiles_x * p.tile_w, p.ow);
  EXPECT_GE(p.tiles_y * p.tile_h, p.oh);
  EXPECT_LT((p.tiles_x - 1) * p.tile_w, p.ow);
  EXPECT_LT((p.tiles_y - 1) * p.tile_h, p.oh);
  EXPECT_GE(p.slices * p.n * 8, p.k);
  EXPECT_GE(p.depth * 2, p.chunks);
  EXPECT_GE(p.row_units, p.in_w * p.units);
  EXPECT_EQ(p.in_w, p.thin_channels ? p.tile_w : (p.tile_w - 1) * p.stride + p.columns);
  EXPECT_EQ(p.in_h, (p.tile_h - 1) * p.stride + p.rows);
  for (int u = 0; u < p.in_w * p.units; ++u)  // the kernel's division
    ASSERT_EQ(u * (65536 / p.units + 1) >> 16, u / p.units);
  // A product's eight neighbouring pixels lie in different banks.
  std::set<int> banks;
  for (int i = 0; i < 8; ++i) banks.insert(i * p.pitch % 8);
  EXPECT_EQ(banks.size(), 8u);
}
void check_products(const NarrowConv& p) {
  check(p);
  EXPECT_LE(p.shared_bytes(), kNarrowShared);
  EXPECT_EQ(p.tile_w * p.tile_h, kNarrowWarps * p.m * 16);
}
void check_gradient(const NarrowGradient& p) {
  check(p.conv);
  EXPECT_LE(p.shared_bytes(), kNarrowShared);
  EXPECT_EQ(p.pixels() % 32, 0);  // pairs of steps
  EXPECT_EQ(p.filter_pitch() % 2, 1);
  EXPECT_GE(p.slices * p.n * 8, p.conv.k);
  EXPECT_LE(p.pairs, p.m * kNarrowWarps);
  EXPECT_LE(p.m, kGradientPairs);
  EXPECT_GE(p.pairs * p.row_slices, p.conv.depth);
  for (int card : kCards)
    for (int resident : {1, 2, 3, 4}) {
      const int walkers = p.walkers(card * resident);
      EXPECT_GE(walkers, 1);
      EXPECT_LE(walkers, p.conv.tiles);  // each has a first tile
      EXPECT_LE(walkers, std::max(1, card * resident / (p.slices * p.row_slices))) << "one wave";
      EXPECT_LE(walkers, p.walkers(kGradientBlocks * kSummingMultiprocessors)) << "memory for its sums";
    }
}

}  // namespace

TEST(ConvNarrow, TakesWhatItIsFor) {
  for (const auto& [c, k, stride] :
       std::vector<std::array<int, 3>>{{24, 24, 1}, {24, 96, 2}, {48, 48, 1}, {32, 32, 1}, {3, 24, 2}}) {
    const ConvGeometry g = geometry(64, 112, c, k, 3, stride);
    const auto p = narrow_forward(g);
    ASSERT_TRUE(p) << c << ' ' << k;
    EXPECT_LE(2 * (p->shared_bytes() + 1024), size_t{164} << 10) << "two blocks on sm_80";
    EXPECT_EQ(narrow_data(g), c % 8 == 0) << c << ' ' << k;
    const auto w = narrow_gradient(g);
    ASSERT_TRUE(w) << c << ' ' << k;
    EXPECT_LT(w->partial_bytes(g), size_t{64} << 20);  // the libraries' workspace
  }
  const NarrowConv p = narrow_forward(geometry(64, 112, 24, 24, 3, 1)).value();
  const std::array plan{p.m, p.n, p.tile_w, p.tile_h, p.depth}, wanted{4, 3, 16, 16, 14};
  EXPECT_EQ(plan, wanted);
  EXPECT_LE(3 * (p.shared_bytes() + 1024), size_t{164} << 10) << "three";
  const NarrowConv image = narrow_forward(geometry(64, 96, 3, 56, 5, 2)).value();
  const std::array stem{image.thin_channels, image.c,      image.rows, image.columns,
                        image.units,         image.chunks, image.depth},
      wanted_stem{3, 15, 5, 1, 2, 10, 5};
  EXPECT_EQ(stem, wanted_stem);
  const NarrowGradient w = narrow_gradient(geometry(64, 112, 24, 24, 3, 1)).value();
  const std::array sums{w.m, w.n, w.slices, w.row_slices}, wanted_sums{4, 3, 1, 1};
  EXPECT_EQ(sums, wanted_sums);
  ConvGeometry f32 = geometry(64, 112, 24, 24, 3, 1);
  f32.dtype = DType::f32;
  EXPECT_FALSE(narrow_forward(f32) || narrow_data(f32));
  for (const auto& [c, k, kernel, stride] : std::vector<std::array<int, 4>>{{24, 24, 1, 1},
                                                                            {24, 24, 1, 2},
                                                                            {20, 24, 3, 1},
                                                                            {24, 20, 3, 1},
                                                                            {24, 24, 3, 3},
                                                                            {512, 24, 3, 1},
                                                                            {24, 512, 3, 1}}) {
    const ConvGeometry g = geometry(1, 20, c, k, kernel, stride);
    EXPECT_FALSE(narrow_forward(g) || narrow_data(g)) << c << ' ' << k << ' ' << kernel << ' ' << stride;
  }
}

TEST(ConvNarrow, PlansFitEveryShape) {
  int served = 0, gradients = 0;
  for (int c : {1, 3, 7, 8, 16, 24, 32, 40, 48, 64})
    for (int k : {8, 24, 32, 48, 56, 64, 96, 192, 256})
      for (int kernel : {2, 3, 5, 7})
        for (int stride : {1, 2})
          for (int size : {1, 7, 15, 16, 17, 28, 56, 112}) {
            if (size + 2 < kernel) continue;
            const ConvGeometry g = geometry(2, size, c, k, kernel, stride);
            if (const auto p = narrow_forward(g)) check_products(*p), ++served;
            if (const auto p = narrow_gradient(g)) check_gradient(*p), ++gradients;
            for (int y0 = 0; y0 < stride; ++y0)
              for (int x0 = 0; x0 < stride; ++x0)
                if (const auto p = narrow_data(g, y0, x0); p && p->oh && p->ow) check_products(*p);
            if (HasFailure())
              FAIL() << size << " px, " << c << " -> " << k << ", " << kernel << ", " << stride;
          }
  EXPECT_GT(served, 1000);
  EXPECT_GT(gradients, 1000);
}

// A row of taps is read in whole words, of which some values lie beyond it.
TEST(ConvNarrow, AnInfiniteValueOfAnImageReachesItsWindowOnly) {
  constexpr int kSize = 21, kAt = 9, kOut = 11;
  for (const std::string& device : card_backends()) {
    Direct d(device, true);
    std::vector<bf16> x(kSize * kSize * 3, to_bf16(1)), w(8 * 25 * 3, to_bf16(1));
    x[(kAt * kSize + kAt) * 3] = to_bf16(INFINITY);
    const View y = d.space({{1, kOut, kOut, 8}, DType::bf16});
    const Attrs attrs{{"kernel", 5},   {"stride", 2},     {"pad_top", 2},
                      {"pad_left", 2}, {"pad_bottom", 2}, {"pad_right", 2}};
    d.forward("conv2d", attrs, {d.put(x, {1, kSize, kSize, 3}), d.put(w, {8, 5, 5, 3}), View(), View()}, {y});
    const auto got = d.get<bf16>(y);
    for (int i = 0; i < kOut * kOut * 8; ++i) {
      const int row = i / 8 / kOut * 2, column = i / 8 % kOut * 2;
      EXPECT_EQ(std::isfinite(to_float(got[i])), std::abs(row - kAt) > 2 || std::abs(column - kAt) > 2) << i;
    }
  }
}

// Every tap of the convolution is in the problem of exactly those pixels of dx that it reads, at its place.
TEST(ConvNarrow, GradientTakesEveryTapOnce) {
  for (int kernel : {2, 3, 5})
    for (int stride : {1, 2})
      for (int pad : {0, 1, 3}) {
        const ConvGeometry g = geometry(1, 9, 8, 8, kernel, stride, pad, 1);
        std::multiset<std::array<int, 3>> found, wanted;
        for (int y0 = 0; y0 < stride; ++y0) {
          const NarrowConv p = narrow_data(g, y0, 0).value();
          for (int y = 0; y < p.oh; ++y)
            for (int i = 0; i < p.rows; ++i)
              found.insert({y * p.step + p.y0, y - p.top + i, p.tap_row + i * p.tap_step});
        }
        for (int y = 0; y < g.h; ++y)
          for (int oy = -kernel; oy < g.oh + kernel; ++oy)
            if (const int r = y + pad - oy * stride; r >= 0 && r < kernel) wanted.insert({y, oy, r});
        EXPECT_EQ(found, wanted) << kernel << ' ' << stride << ' ' << pad;
      }
}

}  // namespace gm::test
