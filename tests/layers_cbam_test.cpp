// A small EfficientNetV2-like network with attention: fused and folded graphs against the unfused one.
#include <gtest/gtest.h>

#include <cmath>

#include "engine/optimizer.h"
#include "engine/session.h"
#include "kernels/common/philox.h"
#include "layers/network.h"
#include "layers/rewrites.h"
#include "tests/data_test_util.h"
#include "tests/vectors.h"

namespace gm {
namespace {

using test::distance;
using test::l2;
using test::relative_l2;

constexpr const char* kConfig = R"(model:
  classes: 5
  batch_norm: {momentum: 0.9}
  fused_stages: 2
  se: 0.25
  dropout: 0.2
  stochastic_depth: 0.2
  stem: {filters: 8}
  stages:
    - {expand: 1, kernel: 3, stride: 1, filters: 8, layers: 2}
    - {expand: 4, kernel: 3, stride: 2, filters: 12, layers: 2}
    - {expand: 4, kernel: 3, stride: 2, filters: 20, layers: 2}
  head: {filters: 40}
  attention: {type: cbam, reduction: 8, kernel: 7}
input:
  size: 40
  scaling: {mean: 128, std: 128}
)";

Architecture architecture(const std::vector<std::string>& sets = {}) {
  test::TempDir dir;
  test::write_text(dir / "c.yaml", kConfig);
  return read_architecture(load_config(dir / "c.yaml", sets), "c.yaml");
}

constexpr int64_t kBatch = 6;

struct Fixture {
  explicit Fixture(const Architecture& a) : a(a) {
    PhiloxStream rng(7, RngUse::sample);
    pixels.resize(kBatch * a.input_size * a.input_size * 3);
    for (float& p : pixels) p = static_cast<float>(rng.below(256));
    for (int i = 0; i < kBatch; ++i) labels.push_back(static_cast<int32_t>(rng.below(5)));
  }
  NetworkGraph build(bool training, DType dtype = DType::f32) {
    return build_network(a, table, {.batch = kBatch, .training = training, .dtype = dtype});
  }
  // Random weights, batch-norm scales and running statistics.
  void randomize(Weights& w) {
    w.initialize(table, 3);
    PhiloxStream rng(11, RngUse::init);
    for (const Parameter& p : table) {
      auto v = w.download(p);
      const bool scale = p.name.ends_with("/gamma") || p.name.ends_with("/moving_variance");
      for (float& x : v)
        if (scale || p.shape.rank == 1)
          x = static_cast<float>(scale ? rng.uniform(0.5, 1.5) : rng.uniform(-0.3, 0.3));
      w.upload(p, v);
    }
    w.refresh_bf16();
  }
  struct Step {
    double loss;
    std::map<std::string, std::vector<float>> gradients;
  };
  Step step(const NetworkGraph& g, Weights& w) {
    Session s(*device, g.graph, w, {.training = true, .loss = g.loss, .keep = {g.loss}}, 5);
    s.set_step(0);
    s.upload(g.pixels, pixels.data());
    s.upload(g.labels, labels.data());
    s.forward();
    s.backward();
    Step r{s.download(g.loss)[0], {}};
    for (const Parameter& p : table)
      if (p.trainable) r.gradients[p.name] = to_host(*device, w.gradient(p));
    return r;
  }
  std::vector<float> logits(const NetworkGraph& g, Weights& w) {
    Session s(*device, g.graph, w, {.keep = {g.logits}});
    s.upload(g.pixels, pixels.data());
    s.upload(g.labels, labels.data());
    s.forward();
    return s.download(g.logits);
  }

  Architecture a;
  std::unique_ptr<Device> device = open_device("cpu");
  ParameterTable table;
  std::vector<float> pixels;
  std::vector<int32_t> labels;
};

class Attention : public testing::TestWithParam<std::vector<std::string>> {};

TEST_P(Attention, FusedTrainingEqualsUnfused) {
  Fixture f(architecture(GetParam()));
  const NetworkGraph plain = f.build(true), fused = fuse_for_training(plain);
  EXPECT_LT(fused.graph.nodes().size(), plain.graph.nodes().size());
  Weights w(*f.device, f.table, false, true);
  f.randomize(w);
  const auto want = f.step(plain, w);
  f.randomize(w);  // running statistics moved
  const auto got = f.step(fused, w);
  EXPECT_NEAR(got.loss, want.loss, 1e-5 * want.loss);
  // A shift before "1x1 convolution, batch norm" changes nothing, so its gradient is zero up to rounding: the
  // whole gradient sets the scale there.
  double all = 0;
  for (const auto& [name, gradient] : want.gradients) all = std::hypot(all, l2(gradient));
  for (const auto& [name, gradient] : want.gradients)
    EXPECT_LT(distance(got.gradients.at(name), gradient), 2e-4 * l2(gradient) + 1e-6 * all) << name;
}

TEST_P(Attention, FoldedInferenceEqualsUnfused) {
  Fixture f(architecture(GetParam()));
  const NetworkGraph plain = f.build(false);
  Weights w(*f.device, f.table, false, false);
  f.randomize(w);
  FoldedNetwork folded(plain);
  Weights fw(*f.device, folded.table, false, false);
  folded.refresh(f.table, w, fw);
  EXPECT_LT(relative_l2(f.logits(folded.net, fw), f.logits(plain, w)), 1e-5);
}

// The stored activations are rounded, the attention itself stays in f32.
TEST_P(Attention, Bf16StaysNearF32) {
  Fixture f(architecture(GetParam()));
  const NetworkGraph wide = f.build(false), half = f.build(false, DType::bf16);
  Weights w(*f.device, f.table, true, false);
  f.randomize(w);
  EXPECT_LT(relative_l2(f.logits(half, w), f.logits(wide, w)), 2e-2);
}

INSTANTIATE_TEST_SUITE_P(
    Layers, Attention,
    testing::Values(std::vector<std::string>{}, std::vector<std::string>{"model.attention.variant=authors"},
                    std::vector<std::string>{"model.attention.type=se"},
                    std::vector<std::string>{"model.attention.bias=false", "model.hidden.units=24",
                                             "model.hidden.l2=0.01", "model.hidden.dropout=0.4"},
                    std::vector<std::string>{"model.fused_stages=0"}));

TEST(Cbam, ScaleAndPoolAreOnePass) {
  Fixture f(architecture());
  for (const NetworkGraph& g : {fuse_for_training(f.build(true)), fuse_for_training(f.build(false))}) {
    int pools = 0, both = 0;
    for (const Node& n : g.graph.nodes()) {
      pools += n.op->name == "spatial_pool";
      both += n.op->name == "channel_scale_pool";
    }
    EXPECT_EQ(pools, 0);
    EXPECT_EQ(both, 1);
  }
}

TEST(Cbam, AStepLowersTheLoss) {
  Fixture f(architecture({"model.dropout=0", "model.stochastic_depth=0"}));
  const NetworkGraph g = fuse_for_training(f.build(true));
  Weights w(*f.device, f.table, false, true);
  w.initialize(f.table, 1);
  Optimizer optimizer(*f.device, {.kind = OptimizerConfig::adamw, .lr = 1e-2}, f.table, w);
  const double before = f.step(g, w).loss;
  optimizer.update(1e-2, 0);
  EXPECT_LT(f.step(g, w).loss, before);
}

// Keras: l2 * sum w^2 joins the loss, so the gradient gains 2 l2 w.
TEST(HiddenLayer, L2JoinsLossAndGradient) {
  const std::vector<std::string> hidden{"model.hidden.units=24", "model.dropout=0"};
  auto with_l2 = hidden;
  with_l2.push_back("model.hidden.l2=0.05");
  Fixture f(architecture(hidden)), p(architecture(with_l2));
  const NetworkGraph plain = f.build(true), penalized = p.build(true);
  Weights w(*f.device, f.table, false, true), v(*p.device, p.table, false, true);
  f.randomize(w);
  p.randomize(v);
  const auto without = f.step(plain, w), with = p.step(penalized, v);
  auto want = without.gradients.at("hidden/kernel");
  double square = 0;
  const auto kernel = w.download(f.table[f.table.find("hidden/kernel")]);
  for (size_t i = 0; i < want.size(); ++i) {
    square += double(kernel[i]) * kernel[i];
    want[i] += 0.1f * kernel[i];
  }
  EXPECT_NEAR(with.loss, without.loss + 0.05 * square, 1e-5 * with.loss);
  EXPECT_LT(relative_l2(with.gradients.at("hidden/kernel"), want), 1e-5);
  EXPECT_LT(relative_l2(with.gradients.at("stem_conv/kernel"), without.gradients.at("stem_conv/kernel")),
            1e-5);
}

// The same for chosen layers, fused or not: the longest prefix decides, each kernel counts once.
TEST(L2, ChosenLayersJoinLossAndGradient) {
  Fixture f(architecture({"model.dropout=0"}));
  auto build = [&](std::map<std::string, double> l2, FreezeSpec freeze = {}) {
    return build_network(f.a, f.table, {.batch = kBatch, .training = true, .freeze = freeze, .l2 = l2});
  };
  const NetworkGraph plain = build({});
  const NetworkGraph chosen = build({{"block3", 0.02}, {"block3a", 0.05}, {"stem", 0.01}, {"cbam", 0.03}});
  Weights w(*f.device, f.table, false, true);
  f.randomize(w);
  const auto without = f.step(fuse_for_training(plain), w);
  auto factor = [](const std::string& name) {
    if (!name.ends_with("kernel")) return 0.0;
    return name.starts_with("block3a")  ? 0.05
           : name.starts_with("block3") ? 0.02
           : name.starts_with("stem")   ? 0.01
           : name.starts_with("cbam")   ? 0.03
                                        : 0.0;
  };
  double penalty = 0;
  auto want = without.gradients;
  for (const Parameter& p : f.table)
    if (p.trainable) {
      const auto v = w.download(p);
      for (size_t i = 0; i < v.size(); ++i) {
        penalty += factor(p.name) * v[i] * v[i];
        want[p.name][i] += static_cast<float>(2 * factor(p.name) * v[i]);
      }
    }
  for (const NetworkGraph& g : {chosen, fuse_for_training(chosen)}) {
    f.randomize(w);
    const auto with = f.step(g, w);
    EXPECT_NEAR(with.loss, without.loss + penalty, 1e-5 * with.loss);
    double all = 0;
    for (const auto& [name, gradient] : want) all = std::hypot(all, l2(gradient));
    for (const auto& [name, gradient] : want)
      EXPECT_LT(distance(with.gradients.at(name), gradient), 2e-4 * l2(gradient) + 1e-6 * all) << name;
  }
  EXPECT_ERROR(build({{"blok3", 0.1}}), "'blok3'");
  EXPECT_ERROR(build({{"stem", 0.1}}, {.layers = {"stem"}}), "'stem'");
}

TEST(FusedStages, DecideTheBlockOfEachStage) {
  const Architecture a = architecture();
  EXPECT_EQ(a.stages[0].block, BlockType::fused_mbconv);
  EXPECT_EQ(a.stages[1].se, 0);
  EXPECT_EQ(a.stages[2].block, BlockType::mbconv);
  EXPECT_EQ(a.stages[2].se, 0.25);
  EXPECT_ERROR(architecture({"model.fused_stages=4"}), "there are 3 stages");
  EXPECT_ERROR(architecture({"model.attention.kernel=6"}), "must be odd");
}

}  // namespace
}  // namespace gm
