// Expanding 1x1 convolutions with batch norm and SiLU in kernels of their own: which shapes they take, how
// they are cut, and their results against those of the two steps they replace.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <vector>

#include "kernels/conv_bn_act/expand.h"
#include "tests/cards.h"
#include "tests/op_direct.h"
#include "tests/pixel_products.h"

namespace gm::test {
namespace {

const Attrs kSilu{{"kernel", 1}, {"stride", 1}, {"eps", 1e-3}, {"training", 1}, {"act", Act::silu}};

bool takes(const Attrs& attrs, const ConvGeometry& g, bool residual = false) {
  return expand_backward(attrs, g, residual).has_value();
}
bool takes_forward(int64_t pixels, int64_t c, int64_t k) {
  return expand_forward(kSilu, pixel_product(pixels, c, k), false).has_value();
}

struct Widths {
  int c, k;
};
// Each width of the narrow side that is compiled, with the least, a common and the most channels.
std::vector<Widths> compiled() {
  std::vector<Widths> list;
  for (int c : {16, 24, 32, 40, 64, 48, 56, 72})
    for (int k : {2 * c, 4 * c, 6 * c, 256, 448})
      if (takes(kSilu, pixel_product(64, c, k)) && (list.empty() || list.back().k != k))
        list.push_back({c, k});
  return list;
}

TEST(ExpandBackward, TakesWhatItIsFor) {
  const ConvGeometry g = pixel_product(1000, 24, 144);
  EXPECT_TRUE(takes(kSilu, g));
  EXPECT_FALSE(takes(kSilu, g, true)) << "a residual";
  for (const auto& [name, value] : {std::pair{"act", double(Act::relu)}, {"pool", 1.}, {"rate", 0.1}}) {
    Attrs other = kSilu;
    other.set(name, value);
    EXPECT_FALSE(takes(other, g)) << name;
  }
  ConvGeometry f32 = g, wide = g;
  f32.dtype = DType::f32, wide.kernel = 3;
  EXPECT_FALSE(takes(kSilu, f32));
  EXPECT_FALSE(takes(kSilu, wide));
  EXPECT_TRUE(takes(kSilu, pixel_product(1000, 72, 432)));
  EXPECT_FALSE(takes(kSilu, pixel_product(1000, 24, 40))) << "hardly expands";
  EXPECT_FALSE(takes(kSilu, pixel_product(1000, 24, 120))) << "no whole run of 16 channels";
  EXPECT_FALSE(takes(kSilu, pixel_product(1000, 20, 160)));
  EXPECT_FALSE(takes(kSilu, pixel_product(1000, 88, 528)));
  EXPECT_FALSE(takes(kSilu, pixel_product(INT32_MAX, 24, 144)));
  EXPECT_EQ(compiled().size(), 32u);
}

TEST(ExpandBackward, PlansFitTheCards) {
  for (const Widths& w : compiled())
    for (int64_t pixels : {1, 31, 32, 33, 1023, 2304 * 256, 12544 * 256}) {
      const auto plan = expand_backward(kSilu, pixel_product(pixels, w.c, w.k), false);
      ASSERT_TRUE(plan);
      const ExpandBackward& p = *plan;
      SCOPED_TRACE(std::to_string(w.c) + " -> " + std::to_string(w.k));
      EXPECT_GE(p.tiles * kExpandRows, p.pixels);
      EXPECT_LT((p.tiles - 1) * kExpandRows, p.pixels);
      for (int card : kCards) {
        EXPECT_GE(p.walkers(card), 1);
        EXPECT_LE(p.walkers(card), p.tiles);  // each has a first tile
        EXPECT_LE(p.walkers(card), card * (p.warps == 8 ? 2 : 1)) << "one wave";
        EXPECT_LE(sizeof(float) * static_cast<size_t>(p.walkers(card) * p.k * p.c), p.partial_bytes());
      }
      // Every run of 16 channels, every run of 16 x 16 of dx and every unit of a tile of x has an owner.
      EXPECT_LE(p.k, 2 * p.warps * 16);
      EXPECT_LE(p.in_units(), p.warps / 2 * 2);
      EXPECT_LE(kExpandRows * p.in_units(), 32 * p.warps);
      EXPECT_LE(p.shared_bytes(), kLargeShared);
      if (p.warps == 8) EXPECT_LE(2 * p.shared_bytes(), size_t{224} << 10) << "two blocks on an H100";
      EXPECT_LT(p.partial_bytes(), size_t{32} << 20);
      for (int pitch : {p.out_pitch(), p.in_pitch()}) check_banks(pitch);
      for (int e = 0; e < p.tile_units(); ++e)  // the kernel's division
        ASSERT_EQ(static_cast<int64_t>(e) * ((1 << 20) / p.out_units() + 1) >> 20, e / p.out_units());
      ASSERT_LT(int64_t{p.tile_units()} * ((1 << 20) / p.out_units() + 1), INT32_MAX);
    }
}

/// Largest error of got(row, column) over what rounding may cause; the sum over depth of a(row, depth)
/// b(depth, column) is rounded to `rounding` of itself.
template <class A, class B, class Got>
double worst_error(int64_t rows, int64_t columns, int64_t depth, double rounding, A a, B b, Got got) {
  double worst = 0;
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t column = 0; column < columns; ++column) {
      double sum = 0, size = 0;
      for (int64_t i = 0; i < depth; ++i) {
        const double v = double(to_float(a(row, i))) * to_float(b(i, column));
        sum += v, size += std::abs(v);
      }
      const double error = std::abs(to_float(got(row, column)) - sum);
      worst = std::max(worst, error / (rounding * std::abs(sum) + 1e-5 * size));
    }
  return worst;
}

TEST(ExpandForward, EveryWarpHasChannelsAndEveryChannelAWarp) {
  EXPECT_TRUE(takes_forward(1000, 256, 1536));
  EXPECT_FALSE(takes_forward(1000, 264, 1584)) << "more weights than registers";
  for (int c = 8; c <= 256; c += 8)
    for (int k = 2 * c; k <= 1536; k += 16)
      for (int64_t pixels : {1, 63, 64, 65, 2304 * 256}) {
        const auto plan = expand_forward(kSilu, pixel_product(pixels, c, k), false);
        ASSERT_TRUE(plan);
        const ExpandForward& p = *plan;
        SCOPED_TRACE(std::to_string(c) + " -> " + std::to_string(k));
        check_tiles(p);
        for (int card : kCards) {
          const int walkers = p.summing_walkers(card);
          ASSERT_GE(walkers, 1);
          ASSERT_LE(walkers, p.tiles);  // each has a first tile
          ASSERT_LE(walkers, kBnGpuBlocks);
          ASSERT_LE(walkers, std::max(1, card * expand_blocks(p.steps) / p.slices)) << "one wave";
        }
        ASSERT_LE(p.shared_bytes(), c <= 80 ? size_t{40} << 10 : kSmallestShared) << "several blocks, one";
      }
  for (int narrow = 1; narrow <= 32; ++narrow) check_division(narrow);
}

// Batch norm over the yc that was kept: its statistics are those of the values before they were kept.
TEST(ExpandForward, ResultsAreThoseOfTheSteps) {
  const Attrs attrs = Attrs(kSilu).set("momentum", 0.9);
  for (const std::string& device : card_backends())
    for (const auto& [pixels, c, k] : std::vector<std::array<int64_t, 3>>{{1, 8, 16},
                                                                          {63, 16, 48},
                                                                          {64, 16, 96},
                                                                          {65, 24, 144},
                                                                          {1000, 32, 192},
                                                                          {333, 40, 240},
                                                                          {130, 48, 288},
                                                                          {200, 64, 256},
                                                                          {333, 72, 432},
                                                                          {96, 80, 480},
                                                                          {70, 128, 256},
                                                                          {65, 160, 320},
                                                                          {64, 192, 400},
                                                                          {33, 256, 1536}}) {
      SCOPED_TRACE(device + " " + std::to_string(c) + " -> " + std::to_string(k));
      Direct d(device, true);
      // A mean of yc a hundred times its deviation.
      const auto x = rounded(noise(1, pixels * c, 6, 0.2f)), w = rounded(noise(2, k * c, 0.5f, 0.02f));
      const View vx = d.put(x, {1, pixels, 1, c}), vw = d.put(w, {k, 1, 1, c}),
                 gamma = d.put(noise(5, k, 1, 0.3f)), beta = d.put(noise(6, k, 0, 0.5f));
      auto space = [&](const Shape& shape, DType t) { return d.space({shape, t}); };
      auto vectors = [&](float fill) { return d.put(std::vector<float>(static_cast<size_t>(k), fill)); };
      const Shape wide{1, pixels, 1, k};
      const View yc = space(wide, DType::bf16), a = space(wide, DType::bf16), a1 = space(wide, DType::bf16);
      const std::vector<View> got{space({k}, DType::f32), space({k}, DType::f32), vectors(0.5f), vectors(2)},
          want{space({k}, DType::f32), space({k}, DType::f32), vectors(0.5f), vectors(2)};
      d.forward("conv_bn_act", attrs, {vx, vw, gamma, beta}, {a}, {yc, got[0], got[1]}, {got[2], got[3]});
      d.forward("batch_norm_act", attrs, {yc, gamma, beta}, {a1}, {want[0], want[1]}, {want[2], want[3]});

      const auto product = d.get<bf16>(yc);
      EXPECT_LE(worst_error(
                    pixels, k, c, 1. / 256, [&](int64_t p, int64_t j) { return x[p * c + j]; },
                    [&](int64_t j, int64_t i) { return w[i * c + j]; },
                    [&](int64_t p, int64_t i) { return product[p * k + i]; }),
                1);
      const auto inv_std = d.get<float>(want[1]), variance = d.get<float>(want[3]);
      for (size_t v = 0; v < 4; ++v) {
        const auto g = d.get<float>(got[v]), wanted = d.get<float>(want[v]);
        for (size_t i = 0; i < g.size(); ++i) {
          const float scale[] = {1 / inv_std[i], inv_std[i], 1 / inv_std[i], variance[i]};
          ASSERT_NEAR(g[i], wanted[i], 1e-5 * scale[v] + 1e-7 * std::abs(wanted[i])) << v << ' ' << i;
        }
      }
      const auto z = d.get<bf16>(a), z1 = d.get<bf16>(a1);
      for (size_t i = 0; i < z.size(); ++i)
        ASSERT_NEAR(to_float(z[i]), to_float(z1[i]), std::abs(to_float(z1[i])) / 128 + 1e-5) << i;
    }
}

// With dyc as batch_norm_act leaves it: dw is a sum in f32 of the same products, dx is rounded once.
TEST(ExpandBackward, GradientsAreThoseOfTheSteps) {
  for (const std::string& device : card_backends()) {
    std::set<int> narrow;
    for (const Widths& size : compiled()) {
      const auto plan = expand_backward(kSilu, pixel_product(64, size.c, size.k), false);
      ASSERT_TRUE(plan);
      if (plan->shared_bytes() > kSmallestShared) continue;  // one kernel on a larger card only
      narrow.insert(size.c);
      const int64_t pixels = size.c % 16 ? 333 : 160, c = size.c, k = size.k;
      SCOPED_TRACE(device + " " + std::to_string(c) + " -> " + std::to_string(k));
      Direct d(device, true);
      const auto x = rounded(noise(1, pixels * c, 0.3f, 1)), w = rounded(noise(2, k * c, 0, 0.3f)),
                 yc = rounded(noise(3, pixels * k, 0.5f, 1)), da = rounded(noise(4, pixels * k, 0.01f, 1));
      const View vx = d.put(x, {1, pixels, 1, c}), vw = d.put(w, {k, 1, 1, c}),
                 vyc = d.put(yc, {1, pixels, 1, k}), vda = d.put(da, {1, pixels, 1, k}),
                 gamma = d.put(noise(5, k, 1, 0.3f)), beta = d.put(noise(6, k, 0, 0.5f)),
                 mean = d.put(noise(7, k, 0.5f, 0.1f)), inv_std = d.put(noise(8, k, 1, 0.1f));
      auto grad = [&](const Shape& shape, DType t) {
        return GradView{d.space({shape, t}), GradMode::overwrite};
      };
      const GradView dyc = grad(vyc.spec.shape, DType::bf16), dgamma = grad({k}, DType::f32),
                     dbeta = grad({k}, DType::f32), dx = grad(vx.spec.shape, DType::bf16),
                     dw = grad(vw.spec.shape, DType::f32), dgamma1 = grad({k}, DType::f32),
                     dbeta1 = grad({k}, DType::f32);
      d.backward("batch_norm_act", kSilu, {vyc, gamma, beta}, {mean, inv_std}, {vda}, {dyc, dgamma, dbeta});
      d.backward("conv_bn_act", kSilu, {vx, vw, gamma, beta}, {vyc, mean, inv_std}, {vda},
                 {dx, dw, dgamma1, dbeta1});
      EXPECT_EQ(d.get<float>(dgamma.view), d.get<float>(dgamma1.view));
      EXPECT_EQ(d.get<float>(dbeta.view), d.get<float>(dbeta1.view));

      const auto gradient = d.get<bf16>(dyc.view), got_x = d.get<bf16>(dx.view);
      const auto got_w = d.get<float>(dw.view);
      auto wide = [&](int64_t p, int64_t i) { return gradient[p * k + i]; };
      EXPECT_LE(worst_error(
                    pixels, c, k, 1. / 256, wide, [&](int64_t i, int64_t j) { return w[i * c + j]; },
                    [&](int64_t p, int64_t j) { return got_x[p * c + j]; }),
                1);
      EXPECT_LE(worst_error(
                    k, c, pixels, 0, [&](int64_t i, int64_t p) { return wide(p, i); },
                    [&](int64_t p, int64_t j) { return x[p * c + j]; },
                    [&](int64_t i, int64_t j) { return got_w[i * c + j]; }),
                1);
    }
    EXPECT_EQ(narrow.size(), 8u) << "every kernel ran";
  }
}

}  // namespace
}  // namespace gm::test
