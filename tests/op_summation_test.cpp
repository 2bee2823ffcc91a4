// What the order of a long f32 sum takes of the tolerance it is judged by: the weight gradients of a
// convolution, sums over 3136 pixels, formed from the reference's own terms.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "tests/op_harness.h"

namespace gm::test {
namespace {

constexpr int kSide = 56, kIn = 8, kOut = 32, kPixels = kSide * kSide;

// The gradient behind the batch norm of the case (pixels, kOut), by the reference of that op alone.
std::vector<double> gradient_behind(const OpCase& c, const CaseData& data, const Result& want) {
  const OpDef& part = find_op("batch_norm_act");
  OpCase pc{.attrs = c.attrs};
  CaseData pd{.out = data.out,
              .state = data.state,
              .state_values = data.state_values,
              .dout_values = data.dout_values,
              .seed = data.seed};
  pd.in = {{{1, kSide, kSide, kOut}, DType::f32}, data.in[2], data.in[3]};
  pd.in_values = {want.saved[0], data.in_values[2], data.in_values[3]};
  for (const TensorSpec& spec : pd.in) {
    pc.in.push_back({spec});
    pd.din_start.emplace_back(spec.shape.numel(), 0.0);
  }
  // The residual, which is not given.
  pc.in.push_back({{}, Fill::absent});
  pd.in.push_back({});
  pd.in_values.push_back({NAN});
  pd.din_start.push_back({0});
  if (part.saved) pd.saved = part.saved(pc.attrs, pd.in);
  return run_reference(part, pc, pd, false).din.at(0);
}

float in_order(const std::vector<float>& terms) {
  float sum = 0;
  for (float t : terms) sum += t;
  return sum;
}
float in_parts(const std::vector<float>& terms) {
  std::vector<float> part(32);
  for (size_t i = 0; i < terms.size(); ++i) part[i % 32] += terms[i];
  return in_order(part);
}

TEST(OpSummation, TakesAQuarterOfTheTolerance) {
  const OpDef& op = find_op("conv_bn_act");
  const auto cases = op.cases();
  const auto c = std::find_if(cases.begin(), cases.end(), [](const OpCase& k) {
    return k.in[0].spec.dtype == DType::f32 && k.in[0].spec.shape == Shape{1, kSide, kSide, kIn};
  });
  ASSERT_NE(c, cases.end());
  const CaseData data = make_data(op, *c);
  const Result want = run_reference(op, *c, data, false);
  const std::vector<double>&dw = want.din[1], dy = gradient_behind(*c, data, want), &x = data.in_values[0];
  double square = 0;
  for (double v : dw) square += v * v;
  const double rms = std::sqrt(square / double(dw.size()));
  std::mt19937 random(3);
  double straight = 0, parts = 0, shuffled = 0, sorted = 0;
  for (int w = 0; w < static_cast<int>(dw.size()); ++w) {
    const int k = w / (9 * kIn), tap = w / kIn % 9, channel = w % kIn;
    std::vector<float> terms;
    double exact = 0;
    for (int p = 0; p < kPixels; ++p) {
      const int v = p / kSide + tap / 3 - 1, u = p % kSide + tap % 3 - 1;
      if (v < 0 || u < 0 || v >= kSide || u >= kSide) continue;
      const double term = dy[p * kOut + k] * x[(v * kSide + u) * kIn + channel];
      exact += term;
      terms.push_back(static_cast<float>(term));
    }
    ASSERT_NEAR(exact, dw[w], 1e-9 * rms) << w;  // these are the terms
    auto note = [&](double& worst, float sum) {
      worst = std::max(worst, std::abs(sum - dw[w]) / (tolerance_of(*c) * (std::abs(dw[w]) + rms)));
    };
    note(straight, in_order(terms));
    note(parts, in_parts(terms));
    for (int i = 0; i < 20; ++i) {
      std::shuffle(terms.begin(), terms.end(), random);
      note(shuffled, in_order(terms));
    }
    std::sort(terms.begin(), terms.end());
    note(sorted, in_order(terms));
  }
  printf("worst error over tolerance: as the pixels lie %.2f, in 32 parts %.2f, shuffled %.2f, sorted %.2f\n",
         straight, parts, shuffled, sorted);
  EXPECT_LE(std::max({straight, parts, shuffled}), 0.25);
}

}  // namespace
}  // namespace gm::test
