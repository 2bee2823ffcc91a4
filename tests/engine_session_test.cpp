// A whole small network on two backends: the CPU's own kernels against the CUDA sources run on fibers. Same
// weights, same masks: loss, running statistics and every gradient must agree.
#include "engine/budget.h"
#include "engine/optimizer.h"
#include "engine/session.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/common/philox.h"
#include "layers/network.h"
#include "layers/rewrites.h"
#include "tests/small_training.h"
#include "tests/vectors.h"

namespace gm {
namespace {

using test::distance;
using test::l2;

struct Outcome {
  float loss = 0, correct = 0;
  std::vector<std::vector<float>> gradients, states;
};

Architecture small_network() {
  Architecture a = test::small_network();
  a.input_size = 12;
  return a;
}

Outcome train_step(const std::string& device_name, bool fused) {
  const Architecture a = small_network();
  auto device = open_device(device_name);
  ParameterTable table;
  NetworkGraph g = build_network(a, table, {.batch = 4, .training = true, .label_smoothing = 0.1});
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

double norm_of_all(const std::vector<std::vector<float>>& all) {
  double sum = 0;
  for (const auto& v : all) sum += l2(v) * l2(v);
  return std::sqrt(sum);
}

// Some gradients and means are zero by theory (the shift of a batch norm that feeds another one) and hold
// only rounding: they are measured against the norm of everything.
void expect_same(const std::vector<std::vector<float>>& got, const std::vector<std::vector<float>>& want,
                 double tolerance, const char* what) {
  ASSERT_EQ(got.size(), want.size());
  const double all = norm_of_all(want);
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_LT(distance(got[i], want[i]), tolerance * l2(want[i]) + 1e-6 * all) << what << " " << i;
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

// Evaluation between the steps, in the memory of training and in its own: the same bits, and the budget knows
// what either takes.
TEST(EngineSession, EvaluationInBorrowedMemoryChangesNothing) {
  auto run = [](bool borrow, bool evaluate) {
    auto device = open_device("cpu", {.threads = 2});
    ParameterTable table;
    BuildOptions build{.batch = 4, .training = true};
    const NetworkGraph train = fuse_for_training(build_network(small_network(), table, build));
    build.training = false;
    const NetworkGraph eval = build_network(small_network(), table, build);
    Weights weights(*device, table, false, true);
    weights.initialize(table, 5);
    Optimizer optimizer(*device, {}, table, weights);
    Session trainer(*device, train.graph, weights, training_options(train, true), 9);
    Session evaluator(*device, eval.graph, weights, evaluation_options(eval), 0, borrow ? &trainer : nullptr);
    EXPECT_EQ(evaluator.bytes() == 0, borrow);
    const MemoryBudget budget = training_budget(train, eval, {.recompute = true});
    EXPECT_EQ(budget.bytes("training activations") + budget.bytes("workspace"), trainer.bytes());
    EXPECT_EQ(budget.bytes("parameters") + budget.bytes("gradients"), weights.bytes());
    EXPECT_EQ(budget.bytes("optimizer state"), optimizer.bytes());
    PhiloxStream rng(3, RngUse::sample);
    std::vector<float> pixels(train.graph.spec(train.pixels).shape.numel()), results;
    const std::vector<int32_t> labels{0, 2, 1, 1};
    for (int step = 0; step < 3; ++step) {
      for (float& p : pixels) p = static_cast<float>(rng.below(256));
      trainer.upload(train.pixels, pixels.data());
      trainer.upload(train.labels, labels.data());
      trainer.set_step(static_cast<uint64_t>(step));
      trainer.forward();
      trainer.backward();
      optimizer.update(0.01, step);
      results.push_back(trainer.download(train.loss)[0]);
      if (!evaluate) continue;
      evaluator.upload(eval.pixels, pixels.data());
      evaluator.upload(eval.labels, labels.data());
      evaluator.forward();
      evaluator.download(eval.loss);
    }
    for (const Parameter& p : table)
      for (float v : weights.download(p)) results.push_back(v);
    return results;
  };
  const std::vector<float> alone = run(false, false);
  EXPECT_EQ(run(false, true), alone);
  EXPECT_EQ(run(true, true), alone);
}

TEST(EngineSession, ClassWeightsScaleTheLossOfTheirImages) {
  const Architecture a = small_network();
  auto device = open_device("cpu", {.threads = 1});
  ParameterTable table;
  const NetworkGraph g =
      fuse_for_training(build_network(a, table, {.batch = 4, .training = true, .class_weights = true}));
  Weights weights(*device, table, false, true);
  weights.initialize(table, 5);
  Session session(*device, g.graph, weights,
                  {.training = true, .loss = g.loss, .keep = {g.loss, g.correct, g.logits}}, 9);
  PhiloxStream rng(3, RngUse::sample);
  std::vector<float> pixels(g.graph.spec(g.pixels).shape.numel());
  for (float& p : pixels) p = static_cast<float>(rng.below(256));
  const std::vector<int32_t> labels{0, 2, 1, 2};
  const std::vector<float> of_class{0.5f, 3, 1.25f};
  session.upload(g.class_weights, of_class.data());
  for (uint64_t step = 0; step < 2; ++step) {  // uploaded once
    session.upload(g.pixels, pixels.data());
    session.upload(g.labels, labels.data());
    session.set_step(step);
    session.forward();
    const std::vector<float> z = session.download(g.logits);
    double want = 0;
    for (int i = 0; i < 4; ++i) {
      double sum = 0;
      for (int c = 0; c < 3; ++c) sum += std::exp(double(z[3 * i + c]));
      want += of_class[labels[i]] * (std::log(sum) - z[3 * i + labels[i]]) / 4;
    }
    session.backward();
    EXPECT_NEAR(session.download(g.loss)[0], want, 1e-6);
  }
}

// PlanOptions::accumulate: two batches leave the sum of what each leaves alone. Batch norm's running
// statistics do not enter a training step, dropout is told the step.
TEST(EngineSession, GradientsOfSeveralBatchesAddUp) {
  for (const char* name : {"cpu", "simt"}) {
    auto device = open_device(name);
    ParameterTable table;
    const NetworkGraph g =
        fuse_for_training(build_network(small_network(), table, {.batch = 4, .training = true}));
    Weights weights(*device, table, false, true);
    weights.initialize(table, 5);
    auto gradients = [&](bool accumulate, std::vector<int> batches) {
      Session session(*device, g.graph, weights, training_options(g, false, accumulate), 9);
      device->fill(weights.gradients().data(), 0, weights.gradients().bytes());
      for (int batch : batches) {
        PhiloxStream rng(static_cast<uint64_t>(batch), RngUse::sample);
        std::vector<float> pixels(g.graph.spec(g.pixels).shape.numel());
        for (float& p : pixels) p = static_cast<float>(rng.below(256));
        const std::vector<int32_t> labels{0, 2, 1, batch % 3};
        session.upload(g.pixels, pixels.data());
        session.upload(g.labels, labels.data());
        session.set_step(static_cast<uint64_t>(batch));
        session.forward();
        session.backward();
      }
      std::vector<std::vector<float>> all;
      for (const Parameter& p : table)
        if (p.trainable) all.push_back(to_host(*device, weights.gradient(p)));
      return all;
    };
    auto want = gradients(false, {1});
    const auto second = gradients(false, {2});
    for (size_t i = 0; i < want.size(); ++i)
      for (size_t k = 0; k < want[i].size(); ++k) want[i][k] += second[i][k];
    expect_same(gradients(true, {1, 2}), want, 1e-5, name);
    EXPECT_EQ(gradients(true, {2}), second);
    EXPECT_EQ(gradients(false, {1, 2}), second) << "without accumulation the last batch alone";
  }
}

TEST(EngineSession, SameStepTwiceGivesTheSameBits) {
  const Outcome a = train_step("cpu", true), b = train_step("cpu", true);
  EXPECT_EQ(a.gradients, b.gradients);
  EXPECT_EQ(a.states, b.states);
  EXPECT_EQ(a.loss, b.loss);
}

}  // namespace
}  // namespace gm
