// Which convolutions of the papers' networks are one with their batch norm in training.
#include <gtest/gtest.h>

#include <tuple>

#include "kernels/conv_bn_act/expand.h"
#include "layers/network.h"
#include "layers/rewrites.h"

namespace gm {

TEST(LayersExpandPlan, TakesTheExpandingConvolutionsOfThePapers) {
  // of: the 1x1 convolutions with more channels behind them than in front; in backward the rest is wider than
  // what registers hold.
  for (const auto& [model, size, forward, backward, of] :
       {std::tuple{"effg0", 64, 8, 5, 8}, {"effg3", 96, 17, 11, 18}, {"effv2s_cbam", 224, 31, 1, 31}}) {
    const std::string file = std::string(GM_SOURCE_DIR) + "/models/" + model + ".yaml";
    const Architecture a = read_architecture(load_config(file, {"input.size=" + std::to_string(size)}), file);
    ParameterTable table;
    const NetworkGraph net = fuse_for_training(
        build_network(a, table, {.batch = 64, .dtype = DType::bf16, .loss = true}), {}, Backend::cuda);
    int forwards = 0, backwards = 0, expanding = 0;
    for (const Node& n : net.graph.nodes()) {
      if (std::string(n.op->name) != "conv_bn_act") continue;
      const View x{nullptr, net.graph.spec(n.in[0])}, w{nullptr, net.graph.spec(n.in[1])};
      const ConvGeometry g = conv_geometry(n.attrs, x, w);
      const bool residual = n.in.size() > 4;
      expanding += g.pointwise() && g.k > g.c;
      forwards += expand_forward(n.attrs, g, residual).has_value();
      backwards += expand_backward(n.attrs, g, residual).has_value();
    }
    EXPECT_EQ(forwards, forward) << model;
    EXPECT_EQ(backwards, backward) << model;
    EXPECT_EQ(expanding, of) << model;
  }
}

}  // namespace gm
