// MBConv and Fused-MBConv blocks as single nodes: which blocks of the networks become one, how each is cut
// for a card, and that the network's logits stay.
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <map>
#include <sstream>

#include "engine/session.h"
#include "kernels/common/philox.h"
#include "kernels/mbconv/mbconv_gpu.h"
#include "layers/network.h"
#include "layers/rewrites.h"
#include "tests/vectors.h"

namespace gm {
namespace {

const std::string kModels = std::string(GM_SOURCE_DIR) + "/models/";

Architecture architecture(const std::string& name, const std::vector<std::string>& sets) {
  const std::string file = kModels + name + ".yaml";
  return read_architecture(load_config(file, sets), file);
}

std::map<std::string, int> count_ops(const Graph& g) {
  std::map<std::string, int> count;
  for (const Node& n : g.nodes()) ++count[std::string(n.op->name)];
  return count;
}

// A node's block, checked against the limits of a card.
void expect_fits(const Graph& g, const Node& n) {
  const MbconvShape s = mbconv_shape(n.attrs, g.input_specs(n));
  const auto found = mbconv_plan(s);
  ASSERT_TRUE(found);
  const MbconvPlan& p = *found;
  const DepthwiseShape& d = s.d;
  SCOPED_TRACE(testing::Message() << n.name << " " << g.spec(n.in[0]).str() << ": rows " << p.rows
                                  << " images " << p.images << " chunk " << p.chunk << " groups "
                                  << p.groups);
  EXPECT_LE(p.shared_bytes(), size_t{99} << 10);
  // Tiles cover the output, none is empty.
  EXPECT_GE(p.rows * p.row_tiles, d.out_height);
  EXPECT_LT(p.rows * (p.row_tiles - 1), d.out_height);
  EXPECT_GE(p.images * p.image_tiles, s.images());
  EXPECT_LT(p.images * (p.image_tiles - 1), s.images());
  EXPECT_TRUE(p.images == 1 || p.row_tiles == 1);
  // So do chunks, in whole vectors.
  const bool half = s.dtype == DType::bf16;
  EXPECT_EQ(p.chunk % (half ? 16 : 8), 0);
  EXPECT_GE(p.groups * p.chunks_per_group(), p.chunks);
  EXPECT_LT((p.groups - 1) * p.chunks_per_group(), p.chunks);
  EXPECT_GE(p.chunks * p.chunk, d.channels);
  // Every sum of the projection has a register: of 256 threads 4 x 4, of 8 warps 16 x 24.
  const int64_t pixels = int64_t{p.images} * p.rows * d.out_width;
  if (half)
    EXPECT_GE(int64_t{p.sums} * 8, (pixels + 15) / 16 * ((s.out_channels + 23) / 24));
  else
    EXPECT_GE(int64_t{p.sums} * 256, (pixels + 3) / 4 * ((s.out_channels + 3) / 4));
  EXPECT_LE(p.sums, half ? 4 : 3);
  // Parts of shared memory follow each other, each as large as the phases need it.
  const int64_t item = half ? 2 : 4;
  const int64_t in_pixels = int64_t{p.images} * std::min<int64_t>(p.in_rows(d), d.height) * d.width;
  if (s.expand) EXPECT_GE(p.e - p.x, in_pixels * s.in_channels * item);
  EXPECT_GE(p.d - p.e, int64_t{p.images} * p.in_rows(d) * (d.width + d.pad_left) * p.chunk * item);
  EXPECT_GE(p.w_expand - p.d, pixels * p.chunk * item);
  if (s.expand) EXPECT_GE(p.w_depthwise - p.w_expand, p.chunk * s.in_channels * item);
  EXPECT_GE(p.w_project - p.w_depthwise, d.taps() * p.chunk * item);
  EXPECT_GE(p.bias - p.w_project, s.out_channels * p.chunk * item);
  EXPECT_GE(p.gate - p.bias, 2 * p.chunk * 4);
  if (s.squeeze) EXPECT_GE(p.shared - p.gate, (2 * d.channels + s.squeeze) * 4);
  EXPECT_GE(p.shared, pixels * s.out_channels * 4);
  // Rows at the edges of tiles are expanded twice; never so often that it dominates where tiles abound.
  if (s.images() >= 64)
    EXPECT_LE(double(p.row_tiles) * p.in_rows(d), 2.5 * double(d.height + d.kernel)) << "halo";
}

}  // namespace

TEST(LayersMbconv, EveryBlockOfTheSmallNetworksHasAPlan) {
  for (const char* name : {"effg0", "effg1", "effg2", "effg3"})
    for (int size : {32, 64, 96})
      for (int64_t batch : {1, 7, 64, 256})
        for (DType t : {DType::f32, DType::bf16})
          for (const char* se : {"model.se=0", "model.se=0.25"}) {
            SCOPED_TRACE(std::string(name) + " " + std::to_string(size) + " px, batch " +
                         std::to_string(batch));
            const Architecture a = architecture(name, {se, "input.size=" + std::to_string(size)});
            ParameterTable table;
            const NetworkGraph plain = build_network(a, table, {.batch = batch, .dtype = t, .loss = false});
            const FoldedNetwork folded(plain, {.every_block = true}, Backend::cuda);
            int blocks = 0;
            for (const StageSpec& s : a.stages) blocks += s.layers;
            auto ops = count_ops(folded.net.graph);
            EXPECT_EQ(ops["mbconv"] + ops["depthwise_conv2d"], blocks);
            // For one image every block fits in bf16.
            if (batch == 1 && t == DType::bf16) EXPECT_EQ(ops["mbconv"], blocks);
            for (const Node& n : folded.net.graph.nodes())
              if (n.op->name == "mbconv") expect_fits(folded.net.graph, n);
          }
}

TEST(LayersMbconv, NodesAndBytesAreThoseOfTheReadme) {
  std::ifstream file(std::string(GM_SOURCE_DIR) + "/layers/README.md");
  std::stringstream readme;
  readme << file.rdbuf();
  for (const char* name : {"effg0", "effg3"})
    for (int size : {32, 64, 96}) {
      const Architecture a = architecture(name, {"input.size=" + std::to_string(size)});
      ParameterTable table;
      const NetworkGraph plain = build_network(a, table, {.dtype = DType::bf16, .loss = false});
      std::string row = "| " + std::string(name) + ", " + std::to_string(size) + " px |";
      for (Backend backend : {Backend::cpu, Backend::cuda}) {
        const FoldedNetwork folded(plain, {.every_block = true}, backend);
        const Graph& g = folded.net.graph;
        double bytes = 0;
        for (const Node& n : g.nodes()) bytes += n.op->cost(Pass::forward, n.attrs, g.input_specs(n)).bytes;
        char text[40];
        std::snprintf(text, sizeof text, " %zu | %.1f |", g.nodes().size(), bytes / 1e6);
        row += text;
      }
      EXPECT_NE(readme.str().find(row), std::string::npos) << "missing: " << row;
    }
}

TEST(LayersMbconv, OnlyOnACardAndOnlyWhenWanted) {
  const Architecture a = architecture("effg0", {"model.se=0.25"});
  ParameterTable table;
  const NetworkGraph plain = build_network(a, table, {.batch = 1, .loss = false});
  auto mbconv = [&](const Fusions& fusions, Backend backend) {
    return count_ops(FoldedNetwork(plain, fusions, backend).net.graph)["mbconv"];
  };
  EXPECT_EQ(mbconv({.every_block = true}, Backend::cuda), 8);
  EXPECT_EQ(mbconv({.every_block = true}, Backend::simt), 8);
  EXPECT_EQ(mbconv({.every_block = true}, Backend::cpu), 0);
  EXPECT_EQ(mbconv({.block = false, .every_block = true}, Backend::cuda), 0);
  EXPECT_EQ(mbconv({.batch_norm = false, .every_block = true}, Backend::cuda), 0);
  EXPECT_EQ(mbconv({.residual = false, .every_block = true}, Backend::cuda), 8);
  auto whole = count_ops(FoldedNetwork(plain, {.every_block = true}, Backend::cuda).net.graph);
  for (const char* gone : {"depthwise_conv2d", "channel_scale", "add"}) EXPECT_EQ(whole[gone], 0) << gone;
  EXPECT_EQ(whole["conv2d"], 2);  // stem and head
  EXPECT_EQ(whole["linear"], 1);  // predictions
}

// Where a card was faster with the convolutions apart, they stay apart: layers/README.md has the times.
TEST(LayersMbconv, BlocksThatDoNotPayStayApart) {
  for (const char* name : {"effg3", "effv2s_cbam"})
    for (int64_t batch : {1, 256}) {
      const Architecture a = architecture(name, {});
      ParameterTable table;
      const NetworkGraph plain =
          build_network(a, table, {.batch = batch, .dtype = DType::bf16, .loss = false});
      if (batch == 1 && a.stages.back().se > 0) continue;  // not measured
      EXPECT_EQ(count_ops(FoldedNetwork(plain, {}, Backend::cuda).net.graph)["mbconv"], 0) << name << batch;
    }
}

TEST(LayersMbconv, FusedBlocksAreOneNodeInBf16OnACard) {
  auto ops = [](const std::string& name, const std::vector<std::string>& sets, DType dtype,
                const Fusions& fusions, Backend backend) {
    const Architecture a = architecture(name, sets);
    ParameterTable table;
    const NetworkGraph plain = build_network(a, table, {.batch = 256, .dtype = dtype, .loss = false});
    return count_ops(FoldedNetwork(plain, fusions, backend).net.graph);
  };
  auto fused = [&](const std::string& name, DType dtype, const Fusions& fusions, Backend backend) {
    return ops(name, {}, dtype, fusions, backend)["fused_mbconv"];
  };
  EXPECT_EQ(fused("effv2s_cbam", DType::bf16, {}, Backend::cuda), 8) << "four of 48 channels, four of 64";
  EXPECT_EQ(fused("effv2s_cbam", DType::bf16, {}, Backend::simt), 8);
  EXPECT_EQ(fused("effv2s_cbam", DType::bf16, {}, Backend::cpu), 0);
  EXPECT_EQ(fused("effv2s_cbam", DType::f32, {}, Backend::cuda), 0);
  EXPECT_EQ(fused("effv2s_cbam", DType::bf16, {.block = false}, Backend::cuda), 0);
  EXPECT_EQ(fused("effv2s_cbam", DType::bf16, {.residual = false}, Backend::cuda), 8);
  EXPECT_EQ(fused("effg3", DType::bf16, {}, Backend::cuda), 0);
  auto whole = ops("effv2s_cbam", {}, DType::bf16, {}, Backend::cuda),
       apart = ops("effv2s_cbam", {}, DType::bf16, {.block = false}, Backend::cuda);
  EXPECT_EQ(apart["conv2d"] - whole["conv2d"], 16);
}

TEST(LayersMbconv, LogitsStay) {
  for (const char* se : {"model.se=0", "model.se=0.25"}) {
    const Architecture a = architecture("effg0", {se, "input.size=32"});
    constexpr int64_t kBatch = 3;
    std::vector<float> pixels(kBatch * 32 * 32 * 3);
    PhiloxStream rng(5, RngUse::sample);
    for (float& p : pixels) p = static_cast<float>(rng.below(256));
    auto logits = [&](const char* name, DType dtype, Backend plan) {
      auto device = open_device(name);
      ParameterTable table;
      const NetworkGraph plain = build_network(a, table, {.batch = kBatch, .dtype = dtype, .loss = false});
      Weights w(*device, table, dtype == DType::bf16, false);
      w.initialize(table, 3);
      PhiloxStream draws(11, RngUse::init);
      for (const Parameter& p : table) {
        if (p.shape.rank != 1) continue;
        const bool scale = p.name.ends_with("/gamma") || p.name.ends_with("/moving_variance");
        std::vector<float> v(p.shape.numel());
        for (float& x : v) x = static_cast<float>(scale ? draws.uniform(0.5, 1.5) : draws.uniform(-0.3, 0.3));
        w.upload(p, v);
      }
      const FoldedNetwork folded(plain, {.every_block = true}, plan);
      Weights fw(*device, folded.table, dtype == DType::bf16, false);
      folded.refresh(table, w, fw);
      Session s(*device, folded.net.graph, fw, {.keep = {folded.net.logits}});
      s.upload(folded.net.pixels, pixels.data());
      s.forward();
      return s.download(folded.net.logits);
    };
    const std::vector<float> want = logits("cpu", DType::f32, Backend::cpu);
    for (DType dtype : {DType::f32, DType::bf16})
      for (const char* name : {"simt", "cpu"}) {
        SCOPED_TRACE(std::string(se) + " " + name + " " + dtype_name(dtype));
        EXPECT_LT(test::relative_l2(logits(name, dtype, Backend::simt), want),
                  dtype == DType::f32 ? 1e-5 : 2e-2);
      }
  }
}

}  // namespace gm
