// A whole small network on two backends: the CPU's own kernels against the CUDA sources run on fibers. Same
// weights, same masks: loss, running statistics and every gradient must agree.
#include "engine/session.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/common/philox.h"
#include "layers/network.h"
#include "layers/rewrites.h"

namespace gm {
namespace {

struct Outcome {
  float loss = 0, correct = 0;
  std::vector<std::vector<float>> gradients, states;
};

Outcome train_step(const std::string& device_name, bool fused) {
  Architecture a;
  a.classes = 3;
  a.input_size = 12;
  a.stem_filters = 8;
  a.stages = {
      {.block = "mbconv", .expand = 1, .filters = 8, .layers = 2},
      {.block = "mbconv", .expand = 3, .kernel = 5, .stride = 2, .filters = 12, .layers = 2, .se = 0.25}};
  a.head_filters = 20;
  a.dropout = 0.3;
  a.stochastic_depth = 0.3;
  auto device = open_device(device_name);
  ParameterTable table;
  TrainableGraph g = build_network(a, table, {.batch = 4, .training = true, .label_smoothing = 0.1});
  if (fused) g = fuse_for_training(g);
  Weights weights(*device, table, false, true);
  weights.initialize(table, 5);
  Session session(*device, g.graph, weights, {.training = true, .loss = g.loss, .keep = {g.loss, g.correct}},
                  9);
  PhiloxStream rng(3, RngUse::sample);
  std::vector<float> pixels(g.graph.spec(g.pixels).shape.numel());
  for (float& p : pixels) p = static_cast<float>(rng.below(256));
  const std::vector<int32_t> labels{0, 2, 1, -1};
  session.upload(g.pixels, pixels.data());
  session.upload(g.labels, labels.data());
  session.set_step(17);
  session.forward();
  session.backward();
  Outcome o;
  o.loss = session.download(g.loss)[0];
  o.correct = session.download(g.correct)[0];
  for (const Parameter& p : table)
    (p.trainable ? o.gradients : o.states)
        .push_back(to_host(*device, p.trainable ? weights.gradient(p) : weights.value(p, DType::f32)));
  return o;
}

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double d = 0, n = 0;
  for (size_t i = 0; i < a.size(); ++i) d += double(a[i] - b[i]) * (a[i] - b[i]), n += double(b[i]) * b[i];
  return std::sqrt(d) / (std::sqrt(n) + 1e-6);
}

void expect_same(const Outcome& got, const Outcome& want) {
  EXPECT_NEAR(got.loss, want.loss, 1e-5 * std::abs(want.loss));
  EXPECT_EQ(got.correct, want.correct);
  ASSERT_EQ(got.gradients.size(), want.gradients.size());
  for (size_t i = 0; i < got.gradients.size(); ++i)
    EXPECT_LT(distance(got.gradients[i], want.gradients[i]), 2e-4) << i;
  for (size_t i = 0; i < got.states.size(); ++i)
    EXPECT_LT(distance(got.states[i], want.states[i]), 1e-5) << i;
}

TEST(EngineSession, CudaSourcesOnFibersTrainLikeTheCpu) {
  for (bool fused : {false, true}) {
    SCOPED_TRACE(fused ? "fused" : "unfused");
    expect_same(train_step("simt", fused), train_step("cpu", fused));
  }
}

TEST(EngineSession, FusedGraphTrainsLikeTheUnfusedOne) {
  expect_same(train_step("cpu", true), train_step("cpu", false));
}

TEST(EngineSession, SameStepTwiceGivesTheSameBits) {
  const Outcome a = train_step("cpu", true), b = train_step("cpu", true);
  EXPECT_EQ(a.gradients, b.gradients);
  EXPECT_EQ(a.states, b.states);
  EXPECT_EQ(a.loss, b.loss);
}

}  // namespace
}  // namespace gm
