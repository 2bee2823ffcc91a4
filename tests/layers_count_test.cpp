// Parameters and multiply-accumulates of every network the papers and their references print.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "layers/count.h"
#include "layers/network.h"

namespace gm {
namespace {

NetworkCount count(const std::string& model, int size = 0, const std::vector<std::string>& sets = {}) {
  const std::string path = std::string(GM_SOURCE_DIR) + "/models/" + model + ".yaml";
  Architecture a = read_architecture(load_config(path, sets), path);
  if (size) a.input_size = size;
  ParameterTable table;
  return count_network(build_network(a, table, {.loss = false}).graph);
}

TEST(Counts, EfficientNetG) {
  // S2 scaled by phi (spec 1.2): trainable parameters, and with squeeze-excitation.
  const struct {
    int phi;
    int64_t plain, se;
  } rows[] = {{0, 269445, 324121},
              {1, 473173, 573357},
              {2, 558333, 677575},
              {3, 859765, 1047323},
              {6, 2152781, 2642703}};
  for (const auto& row : rows) {
    const std::string phi = "model.scaling.phi=" + std::to_string(row.phi);
    EXPECT_EQ(count("effg0", 0, {phi}).params_trainable, row.plain) << phi;
    EXPECT_EQ(count("effg0", 0, {phi, "model.se=0.25"}).params_trainable, row.se) << phi;
  }
}

TEST(Counts, ScaledDepthsAreRoundedUpButNotForADoublesLastDigit) {
  ASSERT_GT(1.1 * 50, 55);
  EXPECT_EQ(round_layers(1.1 * 50), 55);
  EXPECT_EQ(round_layers(55.001), 56);
}

// S2 Table 2, all of its columns.
TEST(Counts, StagesOfEfficientNetG0) {
  const std::string path = std::string(GM_SOURCE_DIR) + "/models/effg0.yaml";
  std::string table;
  for (const StageRow& r : stage_rows(read_architecture(load_config(path, {"input.size=32"}), path)))
    table += r.op + " | " + std::to_string(r.resolution) + " | " + std::to_string(r.channels) + " | " +
             std::to_string(r.layers) + "\n";
  EXPECT_EQ(table,
            "Conv 5x5 | 32 | 32 | 1\n"
            "MBConv1, k3x3 | 16 | 16 | 1\n"
            "MBConv6, k3x3 | 16 | 24 | 2\n"
            "MBConv6, k5x5 | 8 | 40 | 2\n"
            "MBConv6, k3x3 | 4 | 80 | 3\n"
            "Conv 1x1 & Pooling & FC | 2 | 160 | 1\n");
}

// The resolutions are those of the graph: odd sizes, symmetric padding, attention, no head convolution.
TEST(Counts, StagesHaveTheGraphsResolutions) {
  for (auto [model, size] :
       {std::pair{"effg0", 55}, {"mobilenetv2", 97}, {"effv2s_cbam", 161}, {"effv2s", 224}}) {
    const std::string path = std::string(GM_SOURCE_DIR) + "/models/" + model + ".yaml";
    Architecture a = read_architecture(load_config(path, {"input.size=" + std::to_string(size)}), path);
    for (bool same : {true, false}) {
      a.same_padding = same;
      ParameterTable table;
      const Graph graph = build_network(a, table, {.loss = false}).graph;
      const auto rows = stage_rows(a);
      const auto& nodes = graph.nodes();
      const auto pool =
          std::find_if(nodes.begin(), nodes.end(), [](const Node& n) { return n.name == "avg_pool"; });
      ASSERT_NE(pool, nodes.end());
      const Shape& last = graph.spec(pool->in[0]).shape;
      EXPECT_EQ(rows.back().resolution, last[1]) << model << " at " << size;
      EXPECT_EQ(rows.back().channels, last.channels());
      EXPECT_EQ(rows.size(), a.stages.size() + 2);
    }
  }
}

TEST(Counts, EfficientNetGMacs) {
  const struct {
    int phi, size;
    int64_t macs;
  } rows[] = {{0, 32, 3654624},  {0, 64, 14616096}, {0, 96, 32885216}, {1, 96, 50758576}, {1, 38, 9537952},
              {2, 96, 71128896}, {2, 46, 17380248}, {3, 96, 97410168}, {3, 55, 35404968}, {6, 96, 204473912}};
  for (const auto& row : rows)
    EXPECT_EQ(count("effg0", row.size, {"model.scaling.phi=" + std::to_string(row.phi)}).macs, row.macs)
        << row.phi << " at " << row.size;
}

// The files of the two families: matched (phi 0, 1, 3, 6 at 96 px) and literal (phi 1..3 at 32 * 1.2^phi px).
TEST(Counts, ShippedEfficientNetG) {
  const struct {
    const char* model;
    int64_t trainable, macs;
  } rows[] = {{"effg0", 269445, 32885216},        {"effg1", 473173, 50758576},
              {"effg2", 859765, 97410168},        {"effg3", 2152781, 204473912},
              {"effg1_literal", 473173, 9537952}, {"effg2_literal", 558333, 17380248},
              {"effg3_literal", 859765, 35404968}};
  for (const auto& row : rows) {
    const NetworkCount c = count(row.model);
    EXPECT_EQ(c.params_trainable, row.trainable) << row.model;
    EXPECT_EQ(c.macs, row.macs) << row.model;
    EXPECT_GT(c.params_total, c.params_trainable) << "running statistics count in the total";
  }
}

TEST(Counts, BlockVocabularyExpressesKnownNetworks) {
  EXPECT_EQ(count("efficientnet_b0").params_trainable, 5288548);
  EXPECT_EQ(count("mobilenetv2").params_trainable, 3504872);
}

// S2 Eq. 13 counts a convolution as (2 Ci K^2 - 1) H W Co: twice the MACs less one operation per output.
TEST(Counts, Eq13FlopsFollowFromMacs) {
  const NetworkCount c = count("effg0");
  int64_t outputs = 0;
  for (const LayerCount& l : c.layers)
    if (l.macs) outputs += l.output.numel();
  EXPECT_EQ(c.flops_eq13, 2 * c.macs - outputs);
}

// A weight file describes its network whole: what its text leaves out would silently be another network.
TEST(Counts, ArchitectureSurvivesItsYaml) {
  auto expect_survives = [](const Architecture& a, const std::string& what) {
    EXPECT_TRUE(read_architecture(parse_yaml(architecture_yaml(a), "stored"), "stored") == a) << what;
  };
  for (const auto& file : std::filesystem::directory_iterator(std::string(GM_SOURCE_DIR) + "/models")) {
    const std::string path = file.path();
    if (file.path().extension() != ".yaml") continue;
    expect_survives(read_architecture(load_config(path), path), path);
  }
  const std::string path = std::string(GM_SOURCE_DIR) + "/models/effv2s_cbam_fc4096.yaml";
  const Architecture given = read_architecture(load_config(path), path);
  EXPECT_EQ(given.attention.type, AttentionType::cbam);
  for (const std::string set : {"model.name=other",
                                "model.classes=3",
                                "model.class_names=[a, b, c, d, e, f, g, h, i, 'j, k']",
                                "model.activation=relu6",
                                "model.padding=symmetric",
                                "model.batch_norm.momentum=0.8",
                                "model.batch_norm.epsilon=1e-5",
                                "model.batch_norm.unbiased=true",
                                "model.dropout=0.123",
                                "model.stochastic_depth=0.321",
                                "model.stem.kernel=5",
                                "model.stem.stride=1",
                                "model.stem.filters=40",
                                "model.head.filters=640",
                                "model.attention.type=se",
                                "model.attention.reduction=16",
                                "model.attention.bias=false",
                                "model.attention.kernel=3",
                                "model.attention.variant=authors",
                                "model.hidden.units=100",
                                "model.hidden.activation=silu",
                                "model.hidden.l2=0.02",
                                "model.hidden.dropout=0.25",
                                "input.size=100",
                                "input.scaling.mean=[1.5, 2, 3]",
                                "input.scaling.std=[0.1, 2, 3]",
                                "model.fused_stages=1"}) {
    const Architecture a = read_architecture(load_config(path, {set}), path);
    EXPECT_FALSE(a == given) << set;
    expect_survives(a, set);
  }
  const std::string stage =
      "{expand: 2, kernel: 5, stride: 3, filters: 24, layers: 2, se: 0.1, residual: false}";
  expect_survives(
      read_architecture(load_config(path, {"model.fused_stages=1", "model.stages=[" + stage + "]"}), path),
      stage);
}

}  // namespace
}  // namespace gm
