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

double norm(const std::vector<float>& v) {
  double sum = 0;
  for (float x : v) sum += double(x) * x;
  return std::sqrt(sum);
}
double norm_of_all(const std::vector<std::vector<float>>& all) {
  double sum = 0;
  for (const auto& v : all) sum += norm(v) * norm(v);
  return std::sqrt(sum);
}

// Some gradients and means are zero by theory (the shift of a batch norm that feeds another one) and hold
// only rounding: they are measured against the norm of everything.
void expect_same(const std::vector<std::vector<float>>& got, const std::vector<std::vector<float>>& want,
                 double tolerance, const char* what) {
  ASSERT_EQ(got.size(), want.size());
  const double all = norm_of_all(want);
  for (size_t i = 0; i < want.size(); ++i) {
    std::vector<float> difference = got[i];
    for (size_t k = 0; k < difference.size(); ++k) difference[k] -= want[i][k];
    EXPECT_LT(norm(difference), tolerance * norm(want[i]) + 1e-6 * all) << what << " " << i;
  }
}

void expect_same(const Outcome& got, const Outcome& want) {
  EXPECT_NEAR(got.loss, want.loss, 1e-5 * std::abs(want.loss));
  EXPECT_EQ(got.correct, want.correct);
  expect_same(got.gradients, want.gradients, 2e-4, "gradient");
  expect_same(got.states, want.states, 1e-5, "state");
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
