// What the walk over the loss's cases does not reach: huge logits, rows that do not count, broken labels,
// inference without saved tensors, and values worked out by hand.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/op_direct.h"
#include "tests/op_harness.h"

namespace gm::test {

namespace {

struct LossRun {
  float loss, correct;
  std::vector<float> gradient;
};
template <class Target>
LossRun run_loss(const std::string& backend, const std::vector<float>& logits, const Shape& shape,
                 const std::vector<Target>& targets, const Shape& target_shape,
                 const std::vector<float>& weights = {}, double smoothing = 0) {
  Direct d(backend);
  const Attrs attrs{{"smoothing", smoothing}};
  const View z = d.put(logits, shape), t = d.put(targets, target_shape),
             w = weights.empty() ? View{} : d.put(weights);
  const View loss = d.space({{1}, DType::f32}), correct = d.space({{1}, DType::f32});
  const std::vector<View> saved{d.space(z.spec), d.space({{shape[0]}, DType::f32}),
                                d.space({{1}, DType::f32})};
  d.forward("softmax_xent", attrs, {z, t, w}, {loss, correct}, saved);
  const View dz = d.space(z.spec);
  d.backward("softmax_xent", attrs, {View{nullptr, z.spec}, t, View{nullptr, w.spec}}, saved,
             {d.put(std::vector<float>{1.f}), View{}}, {{dz, GradMode::overwrite}, {}, {}});

  // Inference: the same results without saved tensors.
  const View loss2 = d.space(loss.spec), correct2 = d.space(correct.spec);
  d.forward("softmax_xent", attrs, {z, t, w}, {loss2, correct2}, {View{}, View{}, View{}});
  const LossRun r{d.get<float>(loss)[0], d.get<float>(correct)[0], d.get<float>(dz)};
  const float again = d.get<float>(loss2)[0];
  EXPECT_TRUE(again == r.loss || (std::isnan(again) && std::isnan(r.loss))) << backend;
  EXPECT_EQ(d.get<float>(correct2)[0], r.correct) << backend;
  return r;
}

}  // namespace

TEST(OpSoftmaxXent, ByHand) {
  for (const auto& backend : backends()) {
    // Two classes, p = (1/4, 3/4) and (1/2, 1/2).
    const float log3 = std::log(3.f);
    const auto r = run_loss<int>(backend, {0, log3, 5, 5}, {2, 2}, {0, 1}, {2});
    EXPECT_NEAR(r.loss, (std::log(4.) + std::log(2.)) / 2, 1e-6) << backend;
    EXPECT_EQ(r.correct, 0) << backend << ": the first of equal logits is the prediction";
    const float want[] = {-0.375f, 0.375f, 0.25f, -0.25f};
    for (int i = 0; i < 4; ++i) EXPECT_NEAR(r.gradient[i], want[i], 1e-6) << backend;
    // Weights scale the loss, the divisor stays the number of rows.
    const auto w = run_loss<int>(backend, {0, log3, 5, 5}, {2, 2}, {0, 1}, {2}, {2, 6});
    EXPECT_NEAR(w.loss, (2 * std::log(4.) + 6 * std::log(2.)) / 2, 1e-5) << backend;
    // One-hot soft targets are labels.
    const auto s = run_loss<float>(backend, {0, log3, 5, 5}, {2, 2}, {1, 0, 0, 1}, {2, 2}, {2, 6});
    EXPECT_NEAR(s.loss, w.loss, 1e-6) << backend;
    // Smoothing 0.2: targets (0.9, 0.1) and (0.1, 0.9).
    const auto m = run_loss<int>(backend, {0, log3, 5, 5}, {2, 2}, {0, 1}, {2}, {}, 0.2);
    EXPECT_NEAR(m.loss, (0.9 * std::log(4.) + 0.1 * std::log(4. / 3) + std::log(2.)) / 2, 1e-6) << backend;
  }
}

TEST(OpSoftmaxXent, RowsWithANegativeLabelDoNotCount) {
  const float nan = std::nanf("");
  for (const auto& backend : backends()) {
    const auto all = run_loss<int>(backend, {1, 2, 3, 0, 1, 0}, {2, 3}, {2, 0}, {2});
    const auto r =
        run_loss<int>(backend, {1, 2, 3, 9, 9, 9, 0, 1, 0, nan, nan, nan}, {4, 3}, {2, -1, 0, -7}, {4});
    EXPECT_FLOAT_EQ(r.loss, all.loss) << backend;
    EXPECT_EQ(r.correct, 1) << backend;
    for (int k = 0; k < 3; ++k) {
      EXPECT_FLOAT_EQ(r.gradient[k], all.gradient[k]) << backend;
      EXPECT_EQ(r.gradient[3 + k], 0) << backend;
      EXPECT_FLOAT_EQ(r.gradient[6 + k], all.gradient[3 + k]) << backend;
      EXPECT_EQ(r.gradient[9 + k], 0) << backend;
    }
    const auto none = run_loss<int>(backend, {1, 2, 3, 4}, {2, 2}, {-1, -1}, {2});
    EXPECT_EQ(none.loss, 0) << backend;
    EXPECT_EQ(none.correct, 0) << backend;
    for (float g : none.gradient) EXPECT_EQ(g, 0) << backend;
  }
}

TEST(OpSoftmaxXent, SoftRowsWithANegativeFirstTargetDoNotCount) {
  const float nan = std::nanf("");
  for (const auto& backend : backends()) {
    for (const std::vector<float>& weights : {std::vector<float>{}, {2, 1, 3}}) {
      const auto all = run_loss<float>(backend, {1, 2, 3, 0, 1, 0}, {2, 3}, {0.25f, 0, 0.75f, 0.5f, 0.5f, 0},
                                       {2, 3}, weights, 0.1);
      const auto r =
          run_loss<float>(backend, {9, 8, 7, 1, 2, 3, 0, 1, 0, nan, nan, nan}, {4, 3},
                          {-1, 0, 0, 0.25f, 0, 0.75f, 0.5f, 0.5f, 0, -1, 0, 0}, {4, 3}, weights, 0.1);
      EXPECT_FLOAT_EQ(r.loss, all.loss) << backend;
      EXPECT_EQ(r.correct, 1) << backend;
      for (int k = 0; k < 3; ++k) {
        EXPECT_EQ(r.gradient[k], 0) << backend;
        EXPECT_FLOAT_EQ(r.gradient[3 + k], all.gradient[k]) << backend;
        EXPECT_FLOAT_EQ(r.gradient[6 + k], all.gradient[3 + k]) << backend;
        EXPECT_EQ(r.gradient[9 + k], 0) << backend;
      }
    }
    const auto none = run_loss<float>(backend, {1, 2, 3, 4}, {2, 2}, {-1, 0, -1, 0}, {2, 2});
    EXPECT_EQ(none.loss, 0) << backend;
    for (float g : none.gradient) EXPECT_EQ(g, 0) << backend;
  }
}

TEST(OpSoftmaxXent, ALabelPastTheClassesIsLoud) {
  for (const auto& backend : backends()) {
    const auto r = run_loss<int>(backend, {1, 2, 3, 4}, {2, 2}, {2, 1}, {2}, {1, 1});
    EXPECT_TRUE(std::isnan(r.loss)) << backend;
    EXPECT_TRUE(std::isnan(r.gradient[0])) << backend;
    EXPECT_FALSE(std::isnan(r.gradient[2])) << backend;
  }
}

TEST(OpSoftmaxXent, HugeLogitsStayFinite) {
  const OpDef& op = find_op("softmax_xent");
  for (const OpCase& c : op.cases()) {
    if (c.large) continue;
    CaseData data = make_data(op, c);
    // A power of two near 100: bf16 logits stay representable.
    for (double& z : data.in_values[0]) z *= 128;
    const Result want = run_reference(op, c, data, false);
    for (const auto& backend : backends()) {
      SCOPED_TRACE(backend + " " + case_name(op, c));
      auto device = open_device(backend);
      const Result got = run(*device, op, c, data, false);
      for (int o : {0, 1}) expect_close(got.out[o], want.out[o], tolerance_of(c), "out" + std::to_string(o));
      expect_close(got.din[0], want.din[0], tolerance_of(c), "din0");
      for (double g : got.din[0]) ASSERT_TRUE(std::isfinite(g));
    }
  }
}

// The sums of a large batch must not depend on the number of threads.
TEST(OpSoftmaxXent, SameBitsOnAnyNumberOfThreads) {
  const OpDef& op = find_op("softmax_xent");
  const OpCase c{.in = {{{{257, 33}, DType::f32}}, {{{257}, DType::i32}, Fill::labels}}};
  const CaseData data = make_data(op, c);
  const Result one = run(*open_device("cpu", {.threads = 1}), op, c, data, false);
  for (int threads : {2, 5}) {
    const Result many = run(*open_device("cpu", {.threads = threads}), op, c, data, false);
    EXPECT_EQ(one.out, many.out);
    EXPECT_EQ(one.din, many.din);
  }
}

}  // namespace gm::test
