// Every fusion, alone and all together, against the graph as it was written: one training step, and
// inference.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <optional>

#include "engine/session.h"
#include "kernels/common/philox.h"
#include "layers/network.h"
#include "layers/rewrites.h"
#include "tests/vectors.h"

namespace gm {
namespace {

using test::distance;
using test::l2;

constexpr int kBatch = 5, kSize = 16;

// Fused-MBConv with and without expansion, MBConv with squeeze-and-excitation; all with a residual and a rate
// at which some samples are dropped.
Architecture network() {
  Architecture a;
  a.classes = 3;
  a.input_size = kSize;
  a.stem_filters = 8;
  a.stages = {{.block = BlockType::fused_mbconv, .expand = 1, .filters = 8, .layers = 2},
              {.block = BlockType::fused_mbconv, .expand = 4, .stride = 2, .filters = 16, .layers = 2},
              {.block = BlockType::mbconv, .expand = 4, .stride = 2, .filters = 20, .layers = 2, .se = 0.25}};
  a.head_filters = 24;
  a.stochastic_depth = 0.6;
  a.attention.type = AttentionType::cbam;
  return a;
}

struct Named {
  const char* name;
  Fusions fusions;
};
// batch_norm is what the others stand on, except attention.
Fusions only(std::initializer_list<bool Fusions::*> wanted) {
  Fusions f = Fusions::none();
  for (bool Fusions::*fusion : wanted) f.*fusion = true;
  return f;
}
Fusions all_but(bool Fusions::*left_out) {
  Fusions f;
  f.*left_out = false;
  return f;
}
constexpr auto kNorm = &Fusions::batch_norm, kAct = &Fusions::activation, kPool = &Fusions::pool,
               kResidual = &Fusions::residual, kAttention = &Fusions::attention;
const Named kFusions[] = {{"none", Fusions::none()},
                          {"batch_norm", only({kNorm})},
                          {"norm_and_activation", only({kAct})},
                          {"batch_norm_and_activation", only({kNorm, kAct})},
                          {"pool", only({kNorm, kAct, kPool})},
                          {"residual", only({kNorm, kAct, kResidual})},
                          {"residual_without_batch_norm", only({kAct, kResidual})},
                          {"attention", only({kAttention})},
                          {"gate", only({kNorm, kAct, kPool, &Fusions::gate})},
                          {"all_but_block", all_but(&Fusions::block)},
                          {"all_but_gate", all_but(&Fusions::gate)},
                          {"block_without_residual", all_but(kResidual)},
                          {"all", {}}};

class Fixture {
 public:
  explicit Fixture(const char* device_name) : device(open_device(device_name)) {
    PhiloxStream rng(7, RngUse::sample);
    pixels.resize(kBatch * kSize * kSize * 3);
    for (float& p : pixels) p = static_cast<float>(rng.below(256));
  }
  NetworkGraph build(bool training, DType dtype) {
    return build_network(network(), table, {.batch = kBatch, .training = training, .dtype = dtype});
  }
  void randomize(Weights& w) {
    w.initialize(table, 3);
    PhiloxStream rng(11, RngUse::init);
    for (const Parameter& p : table) {
      auto v = w.download(p);
      const bool scale = p.name.ends_with("/gamma") || p.name.ends_with("/moving_variance");
      if (scale || p.shape.rank == 1)
        for (float& x : v) x = static_cast<float>(scale ? rng.uniform(0.5, 1.5) : rng.uniform(-0.3, 0.3));
      w.upload(p, v);
    }
    w.refresh_bf16();
  }
  void feed(Session& s, const NetworkGraph& g) {
    const std::vector<int32_t> labels{0, 2, 1, 1, 0};
    s.upload(g.pixels, pixels.data());
    s.upload(g.labels, labels.data());
    s.set_step(4);
  }

  std::unique_ptr<Device> device;
  ParameterTable table;
  std::vector<float> pixels;
};

// Gradients and running statistics by name; "loss".
using Tensors = std::map<std::string, std::vector<float>>;

// plan: of which backend; by default of the device's own.
Tensors train_step(const char* device, DType dtype, const Fusions& fusions,
                   std::optional<Backend> plan = {}) {
  Fixture f(device);
  const NetworkGraph g = fuse_for_training(f.build(true, dtype), fusions, plan.value_or(f.device->backend()));
  Weights w(*f.device, f.table, dtype == DType::bf16, true);
  f.randomize(w);
  Session s(*f.device, g.graph, w, {.training = true, .loss = g.loss, .keep = {g.loss}}, 9);
  f.feed(s, g);
  s.forward();
  s.backward();
  Tensors t{{"loss", s.download(g.loss)}};
  for (const Parameter& p : f.table)
    t[p.name] = to_host(*f.device, p.trainable ? w.gradient(p) : w.value(p, DType::f32));
  return t;
}

std::vector<float> logits(const char* device, DType dtype, const Fusions& fusions) {
  Fixture f(device);
  const NetworkGraph plain = f.build(false, dtype);
  Weights w(*f.device, f.table, dtype == DType::bf16, false);
  f.randomize(w);
  FoldedNetwork folded(plain, fusions, f.device->backend());
  Weights fw(*f.device, folded.table, dtype == DType::bf16, false);
  folded.refresh(f.table, w, fw);
  Session s(*f.device, folded.net.graph, fw, {.keep = {folded.net.logits}});
  f.feed(s, folded.net);
  s.forward();
  return s.download(folded.net.logits);
}

// Some gradients are zero by theory (a shift that the next batch norm removes) and hold only rounding: the
// norm of everything sets the scale there.
void expect_close(const Tensors& got, const Tensors& want, double tolerance, double of_all) {
  double all = 0;
  for (const auto& [name, v] : want) all = std::hypot(all, l2(v));
  ASSERT_EQ(got.size(), want.size());
  for (const auto& [name, v] : want)
    EXPECT_LT(distance(got.at(name), v), tolerance * l2(v) + of_all * all) << name;
}

std::map<std::string, int> count_ops(const Graph& g) {
  std::map<std::string, int> count;
  for (const Node& n : g.nodes()) ++count[std::string(n.op->name)];
  return count;
}

}  // namespace

TEST(Fusion, TrainsLikeTheUnfusedGraph) {
  const Tensors want = train_step("cpu", DType::f32, Fusions::none());
  for (const Named& n : kFusions) {
    SCOPED_TRACE(n.name);
    expect_close(train_step("cpu", DType::f32, n.fusions), want, 2e-4, 1e-6);
  }
}

TEST(Fusion, CudaSourcesTrainLikeTheUnfusedGraph) {
  const Tensors want = train_step("cpu", DType::f32, Fusions::none());
  for (bool gate : {true, false}) {
    SCOPED_TRACE(gate);
    expect_close(train_step("simt", DType::f32, {.gate = gate}), want, 2e-4, 1e-6);
  }
}

// What a card trains, by the processor.
TEST(Fusion, SqueezeAndExcitationJoinsTheDepthwiseConvolutionOnACard) {
  Fixture f("cpu");
  const NetworkGraph plain = f.build(true, DType::f32);
  auto ops = [&](const Fusions& fusions, Backend backend) {
    return count_ops(fuse_for_training(plain, fusions, backend).graph);
  };
  auto card = ops({}, Backend::cuda);
  EXPECT_EQ(card["depthwise_bn_se"], 2);
  EXPECT_EQ(card["depthwise_bn_act"] + card["channel_scale"], 0);
  for (auto kept :
       {ops({}, Backend::cpu), ops({.gate = false}, Backend::cuda), ops({.pool = false}, Backend::cuda)})
    EXPECT_EQ(kept["channel_scale"], 2);
  const Tensors want = train_step("cpu", DType::f32, Fusions::none());
  expect_close(train_step("cpu", DType::f32, {}, Backend::cuda), want, 2e-4, 1e-6);
}

TEST(Fusion, SqueezeAndExcitationJoinsTheDepthwiseConvolutionInInference) {
  Fixture f("cpu");
  const NetworkGraph plain = f.build(false, DType::f32);
  auto ops = [&](Fusions fusions, Backend backend) {
    fusions.block = false;
    return count_ops(FoldedNetwork(plain, fusions, backend).net.graph);
  };
  auto card = ops({}, Backend::cuda);
  EXPECT_EQ(card["depthwise_se"], 2);
  EXPECT_EQ(card["channel_scale_conv2d"], 2);
  EXPECT_EQ(card["depthwise_conv2d"] + card["channel_scale"], 0);
  for (auto kept : {ops({}, Backend::cpu), ops({.gate = false}, Backend::cuda)}) {
    EXPECT_EQ(kept["depthwise_se"], 0);
    EXPECT_EQ(kept["channel_scale"], 2);
  }
}

// Fused results are rounded once where the parts round each time.
TEST(Fusion, Bf16TrainsNearTheUnfusedGraph) {
  const Tensors want = train_step("cpu", DType::bf16, Fusions::none());
  const Tensors exact = train_step("cpu", DType::f32, Fusions::none());
  const Tensors got = train_step("cpu", DType::bf16, {});
  double unfused = 0, fused = 0;
  for (const auto& [name, v] : exact) {
    unfused = std::hypot(unfused, distance(want.at(name), v));
    fused = std::hypot(fused, distance(got.at(name), v));
  }
  EXPECT_LT(fused, 1.1 * unfused);
}

TEST(Fusion, InfersLikeTheUnfusedGraph) {
  for (DType dtype : {DType::f32, DType::bf16}) {
    const std::vector<float> want = logits("cpu", DType::f32, Fusions::none());
    for (const char* device : {"cpu", "simt"})
      for (const Named& n : kFusions) {
        SCOPED_TRACE(std::string(device) + " " + dtype_name(dtype) + " " + n.name);
        EXPECT_LT(distance(logits(device, dtype, n.fusions), want),
                  (dtype == DType::f32 ? 1e-5 : 2e-2) * l2(want));
      }
  }
}

TEST(Fusion, MakesTheNodesThatTheTestsAboveAreFor) {
  Fixture f("simt");
  auto ops = [&](DType t, const Fusions& fusions) {
    return count_ops(FoldedNetwork(f.build(false, t), fusions, Backend::simt).net.graph);
  };
  auto whole = ops(DType::bf16, {}), parts = ops(DType::bf16, all_but(&Fusions::block));
  EXPECT_EQ(whole["fused_mbconv"], 2);
  EXPECT_EQ(whole["mbconv"], 2);
  EXPECT_EQ(ops(DType::f32, {})["fused_mbconv"], 0);
  for (const char* op : {"depthwise_se", "channel_scale_conv2d"}) EXPECT_EQ(parts[op], 2) << op;
}

TEST(Fusion, LeavesNothingOfTheResidualBehind) {
  Fixture f("cpu");
  const auto plain = count_ops(f.build(true, DType::f32).graph);
  EXPECT_EQ(plain.at("dropout"), 3);
  EXPECT_EQ(plain.at("add"), 5);  // four residuals (the first is never dropped), one sum of CBAM
  const auto fused = count_ops(fuse_for_training(f.build(true, DType::f32)).graph);
  EXPECT_EQ(fused.count("dropout"), 0u);
  EXPECT_EQ(fused.at("add"), 1);
  EXPECT_EQ(fused.count("batch_norm"), 0u);
  const FoldedNetwork folded(f.build(false, DType::f32));
  EXPECT_EQ(count_ops(folded.net.graph).at("add"), 1);
}

// Two branches of one sum: only the later one may take the other in, whose value does not exist before.
TEST(Fusion, AResidualThatComesLaterStaysAnAdd) {
  ParameterTable table;
  NetworkGraph g{Graph(table)};
  Architecture a = network();
  Blocks b(g.graph, a, true);
  g.pixels = g.graph.input("pixels", {Shape{2, 4, 4, 3}, DType::f32});
  auto branch = [&](const char* name) {
    return b.batch_norm(b.conv(g.pixels, std::string(name) + "_conv", 3, 1, 1), std::string(name) + "_bn");
  };
  const ValueId first = branch("first"), second = branch("second");
  const ValueId sum = g.graph.add1("add", {}, {first, second}, "sum");
  g.labels = g.graph.input("labels", {Shape{2}, DType::i32});
  const ValueId pooled = g.graph.add1("global_pool", {{"kind", 0}}, {sum}, "pool");
  g.loss = g.graph.add("softmax_xent", {{"smoothing", 0}}, {pooled, g.labels, kAbsent}, "loss")[0];
  const NetworkGraph fused = fuse_for_training(g);
  ASSERT_EQ(fused.graph.nodes()[0].name, "first_conv");
  EXPECT_EQ(fused.graph.nodes()[0].in.size(), 4u);
  ASSERT_EQ(fused.graph.nodes()[1].name, "second_conv");
  ASSERT_EQ(fused.graph.nodes()[1].in.size(), 5u);
  EXPECT_EQ(fused.graph.nodes()[1].in[4], fused.graph.nodes()[0].out[0]);
}

}  // namespace gm
