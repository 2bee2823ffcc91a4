// gm_check's comparison of two devices: near equals among maxima are a choice, anything else is an error.
#include "layers/model_check.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/common/backends.h"
#include "kernels/common/philox.h"
#include "layers/check_maxima.h"
#include "tests/data_test_util.h"

namespace gm {
namespace {

constexpr const char* kConfig = R"(model:
  classes: 5
  batch_norm: {momentum: 0.9}
  fused_stages: 1
  se: 0.25
  stem: {filters: 8}
  stages:
    - {expand: 1, kernel: 3, stride: 1, filters: 8, layers: 2}
    - {expand: 4, kernel: 3, stride: 2, filters: 12, layers: 2}
  head: {filters: 40}
  attention: {type: cbam, reduction: 8, kernel: 7}
input:
  size: 24
  scaling: {mean: 128, std: 128}
)";

CheckProblem problem() {
  test::TempDir dir;
  test::write_text(dir / "c.yaml", kConfig);
  CheckProblem p{.architecture = read_architecture(load_config(dir / "c.yaml", {}), "c.yaml"), .batch = 3};
  PhiloxStream rng(7, RngUse::sample);
  for (int i = 0; i < 3 * 24 * 24 * 3; ++i) p.pixels.push_back(static_cast<float>(rng.below(256)));
  for (int i = 0; i < 3; ++i) p.labels.push_back(static_cast<int32_t>(rng.below(5)));
  return p;
}
double worst(const std::vector<Difference>& all, Difference::Kind kind) {
  double worst = -1;
  for (const Difference& d : all)
    if (d.kind == kind && !(d.relative <= worst)) worst = d.relative;
  return worst;
}
int64_t moved(const std::vector<Difference>& all) {
  int64_t sum = 0;
  for (const Difference& d : all) sum += d.moved;
  return sum;
}

TEST(LayersCheck, TheCardsKernelsAreTheProcessorsWithinRounding) {
  install_simt_kernels();
  const auto all = check_training_step({"simt"}, {"cpu"}, problem());
  EXPECT_LE(worst(all, Difference::layer), 1e-5);
  EXPECT_LE(worst(all, Difference::gradient), 1e-4);
  EXPECT_EQ(worst(all, Difference::maximum), 0);
}

// Rounding to bf16 moves maxima, each to a place that is right by its own values.
TEST(LayersCheck, MaximaMoveWithRounding) {
  const auto all = check_training_step({"cpu", true}, {"cpu"}, problem());
  EXPECT_GT(moved(all), 0);
  EXPECT_EQ(worst(all, Difference::maximum), 0);
  EXPECT_LE(worst(all, Difference::gradient), 0.1);
}

// Against the reference, whose maxima it takes over, and the reference against it.
TEST(LayersCheck, TheReferenceTakesPartOnBothSides) {
  install_reference_kernels();
  for (const auto& [side, other] : {std::pair{"cpu", "ref"}, {"ref", "cpu"}}) {
    const auto all = check_training_step({side}, {other}, problem());
    EXPECT_LE(worst(all, Difference::gradient), 1e-4);
    EXPECT_EQ(worst(all, Difference::maximum), 0);
  }
}

// (1, 1, 3, 2): two channels of three pixels, and the other way round.
class LayersCheckMaxima : public testing::Test {
 protected:
  LayersCheckMaxima() : graph(table), x(graph.input("x", {{1, 1, 3, 2}, DType::f32})) {
    graph.add("global_avg_max_pool", {}, {x}, "pixels");
    graph.add("spatial_pool", {}, {x}, "channels");
    places = maxima_places(graph);
  }
  ParameterTable table;
  Graph graph;
  ValueId x;
  std::vector<MaximaPlace> places;
  const std::vector<float> ours{1, 5, 3, 4, 2, 6}, theirs{1, 5, 2, 4, 2.125, 6};
};

TEST_F(LayersCheckMaxima, AreFoundInAGraph) {
  ASSERT_EQ(places.size(), 2u);
  for (const MaximaPlace& p : places) EXPECT_EQ(p.pooled, x);
  EXPECT_FALSE(places[0].of_channels);
  EXPECT_TRUE(places[1].of_channels);
}

TEST_F(LayersCheckMaxima, MayLieElsewhereWhereOurValuesSaySo) {
  const Difference d = compare_maxima(graph, places[0], {{1, 2}, ours}, {{2, 2}, theirs});
  EXPECT_EQ(d.moved, 1);
  EXPECT_EQ(d.max, 0.125);
  EXPECT_EQ(d.mean, 0.0625);
  EXPECT_EQ(d.relative, 0);
}

TEST_F(LayersCheckMaxima, AreWrongWhereOurValuesSayOtherwise) {
  const Difference pixels = compare_maxima(graph, places[0], {{0, 2}, ours}, {{2, 2}, theirs});
  EXPECT_DOUBLE_EQ(pixels.relative, (2. - 1.) / 6);
  const Difference channels = compare_maxima(graph, places[1], {{1, 0, 1}, ours}, {{1, 1, 1}, theirs});
  EXPECT_EQ(channels.moved, 1);
  EXPECT_DOUBLE_EQ(channels.relative, (4. - 3.) / 6);
  EXPECT_TRUE(std::isinf(compare_maxima(graph, places[1], {{1, 2, 1}, ours}, {{1, 1, 1}, theirs}).relative));
  EXPECT_TRUE(std::isinf(compare_maxima(graph, places[0], {{-1, 2}, ours}, {{2, 2}, theirs}).relative));
}

TEST_F(LayersCheckMaxima, OfTheOtherSideAreCheckedToo) {
  constexpr int32_t kFar = 1 << 30;  // to follow it is a crash
  EXPECT_TRUE(std::isinf(compare_maxima(graph, places[0], {{2, 2}, ours}, {{kFar, 2}, theirs}).relative));
  EXPECT_TRUE(
      std::isinf(compare_maxima(graph, places[1], {{1, 1, 1}, ours}, {{1, -kFar, 1}, theirs}).relative));
  EXPECT_THROW(compare_maxima(graph, places[0], {{2, 2}, ours}, {{2}, theirs}), Error);
  EXPECT_TRUE(lie_inside(graph, places[0], {0, 2}));
  EXPECT_FALSE(lie_inside(graph, places[0], {0, 3}));
  EXPECT_FALSE(lie_inside(graph, places[1], {0, 1, 2}));
  EXPECT_FALSE(lie_inside(graph, places[1], {0, -1, 1}));
}

}  // namespace
}  // namespace gm
