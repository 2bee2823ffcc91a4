// Activation checkpointing changes where tensors lie and what is computed twice, never a bit of the result.
#include <gtest/gtest.h>

#include "engine/optimizer.h"
#include "engine/session.h"
#include "kernels/common/philox.h"
#include "layers/network.h"
#include "layers/rewrites.h"

namespace gm {
namespace {

// Every kind of block, squeeze-and-excitation, both dropouts and the attention.
Architecture network() {
  Architecture a;
  a.classes = 3;
  a.input_size = 16;
  a.stem_filters = 8;
  a.stages = {{.block = BlockType::fused_mbconv, .expand = 1, .filters = 8, .layers = 2},
              {.block = BlockType::fused_mbconv, .expand = 3, .stride = 2, .filters = 12, .layers = 2},
              {.block = BlockType::mbconv,
               .expand = 3,
               .kernel = 5,
               .stride = 2,
               .filters = 16,
               .layers = 3,
               .se = 0.25}};
  a.head_filters = 24;
  a.attention.type = AttentionType::cbam;
  a.dropout = 0.2;
  a.stochastic_depth = 0.4;
  return a;
}

struct Settings {
  std::string device = "cpu";
  bool fused = true;
  DType dtype = DType::f32;
  FreezeSpec freeze;
  int steps = 3;
};

struct Outcome {
  std::vector<std::vector<float>> weights;  // running statistics included
  std::vector<float> losses;
  size_t arena = 0, repeated = 0;
};

Outcome train(const Settings& s, bool recompute) {
  auto device = open_device(s.device, {.threads = 2});
  ParameterTable table;
  NetworkGraph g =
      build_network(network(), table, {.batch = 4, .training = true, .dtype = s.dtype, .freeze = s.freeze});
  if (s.fused) g = fuse_for_training(g, {}, device->backend());
  Weights weights(*device, table, s.dtype == DType::bf16, true);
  weights.initialize(table, 5);
  Session session(*device, g.graph, weights,
                  {.training = true, .loss = g.loss, .keep = {g.loss}, .recompute = recompute}, 9);
  Optimizer optimizer(*device, {}, table, weights);
  PhiloxStream rng(3, RngUse::sample);
  Outcome o;
  for (int step = 0; step < s.steps; ++step) {
    std::vector<float> pixels(g.graph.spec(g.pixels).shape.numel());
    for (float& p : pixels) p = static_cast<float>(rng.below(256));
    const std::vector<int32_t> labels{0, 2, 1, step % 3};
    session.upload(g.pixels, pixels.data());
    session.upload(g.labels, labels.data());
    session.set_step(static_cast<uint64_t>(step));
    session.forward();
    session.backward();
    optimizer.update(0.01, step);
    o.losses.push_back(session.download(g.loss)[0]);
  }
  for (const Parameter& p : table) o.weights.push_back(weights.download(p));
  o.arena = session.plan().arena_bytes;
  for (const Step& step : session.plan().steps) o.repeated += step.again;
  return o;
}

void expect_same_bits(const Settings& s) {
  const Outcome kept = train(s, false), again = train(s, true);
  EXPECT_EQ(kept.repeated, 0u);
  EXPECT_GT(again.repeated, 0u);
  EXPECT_LT(again.arena, kept.arena);
  EXPECT_EQ(again.losses, kept.losses);
  EXPECT_EQ(again.weights, kept.weights);
}

TEST(EngineRecompute, SameBitsOnTheCpu) {
  for (bool fused : {true, false})
    for (DType dtype : {DType::f32, DType::bf16}) {
      SCOPED_TRACE(std::string(fused ? "fused " : "unfused ") + dtype_name(dtype));
      expect_same_bits({.fused = fused, .dtype = dtype});
    }
}

TEST(EngineRecompute, SameBitsWithFrozenLayers) {
  expect_same_bits({.freeze = {.layers = {"stem", "block1", "block2a"}}});
  expect_same_bits({.freeze = {.layers = {"block2"}, .batch_norm = true}});
}

TEST(EngineRecompute, SameBitsFromTheCudaSources) {
  for (bool fused : {true, false}) {
    SCOPED_TRACE(fused ? "fused" : "unfused");
    expect_same_bits({.device = "simt", .fused = fused, .steps = 2});
  }
}

}  // namespace
}  // namespace gm
