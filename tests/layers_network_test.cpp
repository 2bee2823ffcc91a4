// What building a network decides by itself: names, rates of dropping, masks, first values.
#include "layers/network.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

namespace gm {
namespace {

Architecture small_network() {
  Architecture a;
  a.classes = 3;
  a.input_size = 8;
  a.stem_filters = 8;
  a.stages = {{.block = BlockType::mbconv, .expand = 1, .filters = 8, .layers = 3},
              {.block = BlockType::fused_mbconv, .expand = 2, .stride = 2, .filters = 16, .layers = 2}};
  return a;
}

// Block i of n is dropped at the rate i / n of the whole; those that change shape have nothing to drop.
TEST(Network, DeeperBlocksAreDroppedMoreOftenAndByMasksOfTheirOwn) {
  Architecture a = small_network();
  a.stochastic_depth = 0.5;
  a.dropout = 0.3;
  a.hidden = {.units = 6, .dropout = 0.2};
  ParameterTable table;
  const NetworkGraph net = build_network(a, table, {.batch = 2, .training = true});
  std::map<std::string, double> rates;
  std::set<int64_t> streams;
  for (const Node& n : net.graph.nodes())
    if (n.op->name == "dropout") {
      rates[n.name] = n.attrs.get("rate");
      streams.insert(n.attrs.geti("stream"));
    }
  EXPECT_EQ(rates, (std::map<std::string, double>{{"block1b_drop", 0.1},
                                                  {"block1c_drop", 0.2},
                                                  {"block2b_drop", 0.4},
                                                  {"top_dropout", 0.3},
                                                  {"hidden_dropout", 0.2}}));
  EXPECT_EQ(streams.size(), rates.size());
}

TEST(Network, TheTwentySeventhBlockOfAStageIsAa) {
  Architecture a = small_network();
  a.stages[0].layers = 29;
  ParameterTable table;
  build_network(a, table, {.batch = 2});
  for (const char* block : {"block1a", "block1z", "block1aa", "block1ac"})
    EXPECT_GE(table.find(std::string(block) + "_dwconv2/kernel"), 0) << block;
  EXPECT_EQ(table.find("block1ad_dwconv2/kernel"), -1);
}

// As the frameworks' own networks and the published CBAM do, by whole parts and at least one.
TEST(Network, NarrowLayersOfAttentionAreRoundedDown) {
  Architecture a = small_network();
  a.stages = {{.block = BlockType::mbconv, .expand = 1, .filters = 11, .se = 0.25},
              {.block = BlockType::mbconv, .expand = 4, .filters = 3, .se = 0.25},
              {.block = BlockType::mbconv, .expand = 4, .filters = 47, .se = 0.25}};
  a.attention.type = AttentionType::cbam;
  a.attention.reduction = 16;
  ParameterTable table;
  build_network(a, table, {.batch = 2});
  auto width = [&](const char* kernel) { return table[table.find(kernel)].shape[0]; };
  EXPECT_EQ(width("block1a_se_reduce/kernel"), 2);  // of 8
  EXPECT_EQ(width("block2a_se_reduce/kernel"), 2);  // of 11
  EXPECT_EQ(width("block3a_se_reduce/kernel"), 1);  // of 3
  EXPECT_EQ(width("cbam_mlp_reduce/kernel"), 2);    // of 47
}

// Keras's default for a Dense layer: U(-l, l) with l = sqrt(6 / (in + out)).
TEST(Network, AHiddenLayerBeginsAsKerassDenseDoes) {
  Architecture a = small_network();
  a.hidden = {.units = 6};
  ParameterTable table;
  build_network(a, table, {.batch = 2});
  const Initializer& init = table[table.find("hidden/kernel")].init;
  EXPECT_EQ(init.kind, Initializer::uniform);
  EXPECT_DOUBLE_EQ(3 * init.scale / init.fan, 6. / (16 + 6));
}

}  // namespace
}  // namespace gm
