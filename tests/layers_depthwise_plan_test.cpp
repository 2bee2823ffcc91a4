// How the networks' depthwise convolutions are cut for a card: slices of channels, strips and bands.
#include <gtest/gtest.h>

#include <tuple>

#include "kernels/common/ceil_div.h"
#include "kernels/depthwise_conv2d/depthwise_gpu.h"
#include "layers/network.h"
#include "tests/cards.h"

namespace gm {
namespace {
using test::kCards;

template <class F>
void for_depthwise(const std::string& model, int size, int64_t batch, F f) {
  const std::string file = std::string(GM_SOURCE_DIR) + "/models/" + model + ".yaml";
  const Architecture a = read_architecture(load_config(file, {"input.size=" + std::to_string(size)}), file);
  ParameterTable table;
  const NetworkGraph net = build_network(a, table, {.batch = batch, .dtype = DType::bf16, .loss = false});
  int found = 0;
  for (const Node& n : net.graph.nodes()) {
    if (!std::string(n.op->name).starts_with("depthwise")) continue;
    SCOPED_TRACE(model + " " + std::to_string(size) + " px, batch " + std::to_string(batch) + ", " + n.name);
    ++found;
    f(DepthwiseShape(n.attrs, net.graph.spec(n.in[0]).shape));
  }
  EXPECT_GT(found, 0) << model;
}

}  // namespace

TEST(LayersDepthwisePlan, UnitsCoverEveryOutputOnce) {
  for (const char* model : {"effv2s_cbam", "effg0", "effg3", "mobilenetv2"})
    for (int size : {32, 96, 161, 224})
      for (int64_t batch : {1, 64, 256})
        for_depthwise(model, size, batch, [&](const DepthwiseShape& d) {
          const DepthwiseSlices sl(d.channels, kDwLanes);
          EXPECT_LE(sl.columns * sl.rows, kDwThreads);
          EXPECT_GE(int64_t{sl.slices} * sl.columns * sl.lanes, d.channels);
          EXPECT_LT(int64_t{sl.slices - 1} * sl.columns * sl.lanes, d.channels);
          const DepthwiseMarch m(d, DType::bf16, sl);
          EXPECT_GE(m.strips * m.tile, d.out_width);
          EXPECT_LT((m.strips - 1) * m.tile, d.out_width);
          EXPECT_GE(m.bands * m.band_rows, d.out_height);
          EXPECT_LT((m.bands - 1) * m.band_rows, d.out_height);
          EXPECT_EQ(m.units, batch * m.strips * m.bands);
          if (m.whole) EXPECT_EQ(m.strips * m.tile, d.out_width);
          for (int card : kCards) {
            const int blocks = m.forward_blocks(sl, card);
            EXPECT_GE(blocks, 1);
            EXPECT_LE(blocks, std::max(1, 2 * kDwResident * card / sl.slices));
            EXPECT_LE(blocks, kBnGpuBlocks);
          }
          EXPECT_EQ(m.forward_blocks(sl, kSummingMultiprocessors), m.blocks) << "the card it is cut for";
        });
}

TEST(LayersDepthwisePlan, NoOtherNumberOfForwardBlocksIsThroughInFewerRounds) {
  for (const char* model : {"effv2s_cbam", "effg0", "effg3"})
    for (int64_t batch : {1, 64, 256})
      for_depthwise(model, 96, batch, [&](const DepthwiseShape& d) {
        const DepthwiseSlices sl(d.channels, kDwLanes);
        const DepthwiseMarch m(d, DType::bf16, sl);
        const int64_t groups = ceil_div(m.units, sl.rows);
        for (int card : kCards) {
          const int at_once = kDwResident * card, blocks = m.forward_blocks(sl, card);
          auto rounds = [&](int64_t n) { return ceil_div(groups, n) * ceil_div(n * sl.slices, at_once); };
          for (int64_t b = 1; b <= std::min<int64_t>(2 * at_once / sl.slices, kBnGpuBlocks); ++b)
            EXPECT_LE(rounds(blocks), rounds(b)) << blocks << " or " << b << " blocks, " << card;
        }
      });
}

// 528 blocks at most would be 336 of two units each, the second wave of them a quarter full.
TEST(LayersDepthwisePlan, WhatIsLeftOverMakesNoWaveOfItsOwn) {
  int found = 0;
  for_depthwise("effg3", 96, 256, [&](const DepthwiseShape& d) {
    if (d.kernel != 5 || d.stride != 1) return;
    ++found;
    const DepthwiseSlices sl(d.channels, kDwLanes);
    const DepthwiseMarch m(d, DType::bf16, sl);
    EXPECT_LE(m.blocks * sl.slices, 264);
    EXPECT_EQ(m.units, m.blocks * sl.rows * 3);
  });
  EXPECT_GT(found, 0);
}

TEST(LayersDepthwisePlan, BackwardMarchesThroughTheMapsOfThePapers) {
  for (const auto& [model, size, batch, wanted] :
       {std::tuple{"effv2s_cbam", 224, 64, 28}, {"effg3", 96, 256, 17}, {"effg3", 96, 64, 17}}) {
    int marching = 0;
    for_depthwise(model, size, batch, [&](const DepthwiseShape& d) {
      const DepthwiseMarchBack back(d, kSummingMultiprocessors);
      if (!back.fits) return;
      ++marching;
      const DepthwiseSlices& sl = back.slices;
      EXPECT_LE(sl.columns * sl.rows, kDwBackThreads);
      EXPECT_EQ(sl.slices, DepthwiseSlices(d).slices)
          << "partial sums are planned for the tiled kernel's slices";
      EXPECT_EQ(back.march.strips * back.march.tile, d.width);
      EXPECT_GE(back.march.bands * back.march.band_rows, d.height);
      for (int card : kCards) {
        const int blocks = DepthwiseMarchBack(d, card).march.blocks;
        EXPECT_LE(blocks, depthwise_gpu_partials(d)) << card;
        EXPECT_LE(blocks, std::max(1, kDwBackBlocks * card / sl.slices)) << "one wave on " << card;
      }
    });
    EXPECT_EQ(marching, wanted) << model;
  }
}

TEST(LayersDepthwisePlan, StripsFillTheMapsOfThePapers) {
  auto check = [&](const DepthwiseShape& d) {
    const DepthwiseSlices sl(d.channels, kDwLanes);
    const DepthwiseMarch m(d, DType::bf16, sl);
    EXPECT_TRUE(m.whole) << d.out_width << " columns";
    EXPECT_EQ(m.tile, d.kernel == 5 ? 4 : d.out_width % 7 ? 6 : 7);
    // Threads with channels, in the mean of the slices, of those that a processor holds for the block.
    const double threads = double(d.channels / sl.lanes) / sl.slices * sl.rows;
    EXPECT_GE(threads / kDwThreads, 0.93) << d.channels << " channels";
  };
  for_depthwise("effv2s_cbam", 224, 64, check);
  for_depthwise("effg3", 96, 256, check);
}

}  // namespace gm
