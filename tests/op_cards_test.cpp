// Passes that leave partial sums are cut for the card: whatever its number of multiprocessors, the sums are
// of the same values.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "kernels/conv2d/conv2d_attrs.h"
#include "tests/cards.h"
#include "tests/op_direct.h"
#include "tests/pixel_products.h"

namespace gm::test {
namespace {

using Values = std::vector<std::vector<float>>;

Attrs normalised(Attrs attrs) {
  return attrs.set("eps", 1e-3).set("training", 1).set("momentum", 0.9).set("act", Act::silu);
}

/// The sums that run(device) gives on cards of every size, against those of an H100's cut. The last bits of a
/// batch norm's sums turn the rounding of single gradients in bf16, 0.4 % of one of 9000 pixels or more: what
/// is summed over those, the third result, moves by that. A block's sums left out are 1 / 264.
void expect_equal_on_cards(const std::function<Values(Direct&)>& run) {
  for (const std::string& device : card_backends()) {
    auto on = [&](int card) {
      Direct d(device, true);
      d.set_multiprocessors(card);
      return run(d);
    };
    const Values wanted = on(132);
    for (int card : kCards) {
      SCOPED_TRACE(device + ", " + std::to_string(card) + " multiprocessors");
      const Values got = on(card);
      ASSERT_EQ(got.size(), wanted.size());
      for (size_t v = 0; v < got.size(); ++v) {
        double squares = 0;
        for (float w : wanted[v]) squares += double(w) * w;
        const double size = std::sqrt(squares / static_cast<double>(wanted[v].size()));
        ASSERT_GT(size, 0) << v;
        for (size_t i = 0; i < got[v].size(); ++i)
          ASSERT_NEAR(got[v][i], wanted[v][i], (v == 2 ? 1e-3 : 2e-5) * size)
              << "result " << v << " at " << i;
      }
    }
  }
}

/// Forward and backward of a convolution with batch norm and SiLU: what is summed over pixels.
Values sums_of(Direct& d, const char* op, const Attrs& attrs, const Shape& x, const Shape& w,
               const Shape& y) {
  const int64_t k = y[3];
  const View vx = d.put(rounded(noise(1, x.numel(), 0.3f, 1)), x),
             vw = d.put(rounded(noise(2, w.numel(), 0, 0.3f)), w), gamma = d.put(noise(3, k, 1, 0.3f)),
             beta = d.put(noise(4, k, 0, 0.5f)), dy = d.put(rounded(noise(5, y.numel(), 0.01f, 1)), y);
  auto space = [&](const Shape& shape, DType t) { return d.space({shape, t}); };
  const View out = space(y, DType::bf16), yc = space(y, DType::bf16), mean = space({k}, DType::f32),
             inv_std = space({k}, DType::f32);
  const std::vector<float> one(static_cast<size_t>(k), 1.f);
  d.forward(op, attrs, {vx, vw, gamma, beta}, {out}, {yc, mean, inv_std}, {d.put(one), d.put(one)});
  auto gradient = [&](const Shape& shape, DType t) { return GradView{space(shape, t), GradMode::overwrite}; };
  const GradView dx = gradient(x, DType::bf16), dw = gradient(w, DType::f32),
                 dgamma = gradient({k}, DType::f32), dbeta = gradient({k}, DType::f32);
  d.backward(op, attrs, {vx, vw, gamma, beta}, {yc, mean, inv_std}, {dy}, {dx, dw, dgamma, dbeta});
  return {d.get<float>(mean), d.get<float>(inv_std), d.get<float>(dw.view), d.get<float>(dgamma.view),
          d.get<float>(dbeta.view)};
}

}  // namespace

TEST(OpCards, DepthwiseConvolutions) {
  for (int kernel : {3, 5})
    for (int stride : {1, 2}) {
      SCOPED_TRACE(std::to_string(kernel) + "x" + std::to_string(kernel) + " / " + std::to_string(stride));
      const int before = (kernel - stride) / 2, after = kernel - stride - before;
      const Attrs attrs = normalised(conv_attrs(kernel, stride, {before, before, after, after}));
      expect_equal_on_cards([&](Direct& d) {
        return sums_of(d, "depthwise_bn_act", attrs, {24, 24, 24, 16}, {kernel, kernel, 16},
                       {24, 24 / stride, 24 / stride, 16});
      });
    }
}

TEST(OpCards, ConvolutionsOfFewChannels) {
  const Attrs attrs = normalised(conv_attrs(3, 1, {1, 1, 1, 1}));
  expect_equal_on_cards([&](Direct& d) {
    return sums_of(d, "conv_bn_act", attrs, {24, 24, 24, 16}, {24, 3, 3, 16}, {24, 24, 24, 24});
  });
}

TEST(OpCards, ExpandingConvolutions) {
  const Attrs attrs = normalised(conv_attrs(1, 1, {0, 0, 0, 0}));
  expect_equal_on_cards([&](Direct& d) {
    return sums_of(d, "conv_bn_act", attrs, {1, 9000, 1, 16}, {48, 1, 1, 16}, {1, 9000, 1, 48});
  });
}

}  // namespace gm::test
