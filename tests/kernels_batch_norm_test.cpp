// What the walk over random cases cannot show of batch norm: channels whose mean is far from zero, and
// results that do not depend on the number of threads.
#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "engine/device.h"
#include "kernels/activation/activation.h"
#include "kernels/common/op.h"
#include "tests/op_harness.h"

namespace gm::test {

namespace {
OpCase large_mean_case(const char* op) {
  const TensorSpec vector{Shape{20}, DType::f32};
  const Attrs attrs{{"eps", 1e-3}, {"momentum", 0.9}, {"training", 1}, {"act", 1}};
  if (std::string(op) == "depthwise_bn_act")
    return {
        .attrs = Attrs(attrs)
                     .set("kernel", 3)
                     .set("stride", 1)
                     .set("pad_top", 1)
                     .set("pad_left", 1)
                     .set("pad_bottom", 1)
                     .set("pad_right", 1),
        .in = {
            {{{4, 13, 11, 20}, DType::f32}}, {{{3, 3, 20}, DType::f32}}, {vector, Fill::positive}, {vector}}};
  return {.attrs = attrs, .in = {{{{4, 13, 11, 20}, DType::f32}}, {vector, Fill::positive}, {vector}}};
}
}  // namespace

class BatchNormDevice : public testing::TestWithParam<const char*> {};

// mean = 300 std: E[x^2] - E[x]^2 in f32 would leave two digits of the variance.
TEST_P(BatchNormDevice, KeepsDigitsWhenTheMeanIsLarge) {
  auto device = open_device(GetParam());
  for (const char* name : {"batch_norm", "batch_norm_act"}) {
    const OpDef& op = find_op(name);
    const OpCase c = large_mean_case(name);
    CaseData data = make_data(op, c);
    for (size_t i = 0; i < data.in_values[0].size(); ++i)
      data.in_values[0][i] = static_cast<float>(data.in_values[0][i] + 300. * (i % 2 ? 1 : -1));
    const Result got = run(*device, op, c, data, false), want = run_reference(op, c, data, false);
    // x itself is given to 300 * 2^-24 = 1.8e-5 of a standard deviation; the saved mean is rounded as
    // coarsely.
    expect_close(got.out[0], want.out[0], 5e-5, std::string(name) + " y");
    expect_close(got.saved[1], want.saved[1], 2e-6, std::string(name) + " inv_std");
    expect_close(got.state[1], want.state[1], 2e-6, std::string(name) + " running variance");
    expect_close(got.din[0], want.din[0], 1e-4, std::string(name) + " dx");
    expect_close(got.din[1], want.din[1], 1e-4, std::string(name) + " dgamma");
  }
}
// n / (n - 1) has no value for a batch of one pixel.
TEST_P(BatchNormDevice, ABatchOfOnePixelKeepsTheRunningVarianceFinite) {
  auto device = open_device(GetParam());
  const OpDef& op = find_op("batch_norm");
  const TensorSpec vector{Shape{20}, DType::f32};
  const OpCase c{.attrs = {{"eps", 1e-3}, {"momentum", 0.9}, {"training", 1}, {"unbiased", 1}},
                 .in = {{{{1, 1, 1, 20}, DType::f32}}, {vector, Fill::positive}, {vector}}};
  const CaseData data = make_data(op, c);
  const Result got = run(*device, op, c, data, false), want = run_reference(op, c, data, false);
  for (int k : {0, 1}) expect_close(got.state[k], want.state[k], 2e-6, "state" + std::to_string(k));
}

// Of ReLU at 0 and of ReLU6 at 0 and 6, as of the references: a channel that is constant lies at beta.
TEST_P(BatchNormDevice, TheSlopeOfAKinkIsZero) {
  auto device = open_device(GetParam());
  const OpDef& op = find_op("batch_norm_act");
  const TensorSpec vector{Shape{12}, DType::f32};
  for (const auto& [act, beta] : {std::pair{Act::relu, 0.}, {Act::relu6, 0.}, {Act::relu6, 6.}}) {
    const OpCase c{.attrs = {{"eps", 1e-3}, {"momentum", 0.9}, {"training", 1}, {"act", act}},
                   .in = {{{{2, 3, 4, 12}, DType::f32}}, {vector, Fill::positive}, {vector}}};
    CaseData data = make_data(op, c);
    std::ranges::fill(data.in_values[0], 2.);
    std::ranges::fill(data.in_values[2], beta);
    const Result got = run(*device, op, c, data, false);
    EXPECT_EQ(got.din[2], std::vector<double>(12)) << "dbeta at " << beta;
  }
}
INSTANTIATE_TEST_SUITE_P(Devices, BatchNormDevice, testing::Values("cpu", "simt"));

TEST(BatchNormThreads, GiveTheSameBits) {
  DeviceOptions options;
  options.threads = 1;
  auto one = open_device("cpu", options);
  options.threads = 3;
  auto three = open_device("cpu", options);
  for (const char* name : {"batch_norm", "batch_norm_act", "depthwise_conv2d", "depthwise_bn_act"}) {
    const OpDef& op = find_op(name);
    for (const OpCase& c : op.cases()) {
      if (!c.large) continue;
      const CaseData data = make_data(op, c);
      const Result a = run(*one, op, c, data, false), b = run(*three, op, c, data, false);
      EXPECT_EQ(a.out, b.out) << case_name(op, c);
      EXPECT_EQ(a.din, b.din) << case_name(op, c);
      EXPECT_EQ(a.state, b.state) << case_name(op, c);
    }
  }
}

}  // namespace gm::test
