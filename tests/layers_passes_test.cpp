// The table of passes over memory in layers/README.md, counted from the costs of the graphs' nodes.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <sstream>

#include "layers/network.h"
#include "layers/rewrites.h"

namespace gm {
namespace {

// Bytes moved by the nodes of block 1b, the one with a residual, in units of its input. Weights are counted
// by the ops too; images are large here and channels few, so that they vanish.
double passes(const Graph& g, Pass pass, double input_bytes) {
  double bytes = 0;
  for (const Node& n : g.nodes())
    if (n.name.rfind("block1b_", 0) == 0) bytes += n.op->cost(pass, n.attrs, g.input_specs(n)).bytes;
  return bytes / input_bytes;
}

struct Block {
  const char* name;
  BlockType kind;
  double se;
  bool expand;
};

enum class Graphs { plain, fused, card, parts };  // card: fused as there; parts: without whole blocks

// Passes over tensors of the size of the block's input and, times e, over expanded ones: from two values of
// e.
std::string count(const Block& b, bool training, Pass pass, Graphs graphs) {
  double at[2];
  for (int k = 0; k < 2; ++k) {
    Architecture a;
    a.classes = 2;
    a.input_size = 128;
    a.stem_filters = 8;
    a.stem_stride = 1;
    a.stages = {{.block = b.kind, .expand = b.expand ? 4 + k : 1, .filters = 8, .layers = 2, .se = b.se}};
    a.head_filters = 8;
    a.stochastic_depth = 0.2;
    ParameterTable table;
    const NetworkGraph plain =
        build_network(a, table, {.batch = 2, .training = training, .dtype = DType::bf16, .loss = training});
    const double input = double(plain.graph.spec(plain.graph.output_of("block1a_project_bn")).bytes());
    const bool card = graphs == Graphs::card || graphs == Graphs::parts;
    const Backend backend = card ? Backend::cuda : Backend::cpu;
    const Fusions whole{.every_block = true}, apart{.block = false};
    if (graphs == Graphs::plain)
      at[k] = passes(plain.graph, pass, input);
    else if (training)
      at[k] = passes(fuse_for_training(plain, {}, backend).graph, pass, input);
    else
      at[k] = passes(FoldedNetwork(plain, graphs == Graphs::parts ? apart : whole, backend).net.graph, pass,
                     input);
  }
  const double wide = at[1] - at[0], narrow = at[0] - 4 * wide;
  EXPECT_NEAR(wide, std::round(wide), 0.1) << b.name;
  EXPECT_NEAR(narrow, std::round(narrow), 0.3) << b.name;
  std::string text = std::to_string(std::lround(narrow));
  if (std::lround(wide)) text += " + " + std::to_string(std::lround(wide)) + " e";
  return text;
}

TEST(Passes, AreThoseOfTheReadme) {
  std::ifstream file(std::string(GM_SOURCE_DIR) + "/layers/README.md");
  std::stringstream readme;
  readme << file.rdbuf();
  const Block blocks[] = {{"Fused-MBConv, e = 1", BlockType::fused_mbconv, 0, false},
                          {"Fused-MBConv", BlockType::fused_mbconv, 0, true},
                          {"MBConv", BlockType::mbconv, 0, true},
                          {"MBConv with SE", BlockType::mbconv, 0.25, true}};
  for (const Block& b : blocks) {
    std::string row = std::string("| ") + b.name + " |";
    for (bool training : {true, false})
      for (Pass pass : {Pass::forward, Pass::backward}) {
        if (!training && pass == Pass::backward) continue;
        for (Graphs graphs : {Graphs::plain, Graphs::fused, Graphs::card})
          row += " " + count(b, training, pass, graphs) + " |";
      }
    EXPECT_NE(readme.str().find(row), std::string::npos) << "missing: " << row;
  }
}

}  // namespace

TEST(Passes, OfSqueezeAndExcitationInInferenceAreThoseOfTheReadme) {
  const Block b{"MBConv with SE", BlockType::mbconv, 0.25, true};
  EXPECT_EQ(count(b, false, Pass::forward, Graphs::fused), "3 + 7 e");
  EXPECT_EQ(count(b, false, Pass::forward, Graphs::parts), "3 + 4 e");
}

}  // namespace gm
