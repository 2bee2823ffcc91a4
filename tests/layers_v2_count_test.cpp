// EfficientNetV2-S and CBAM: parameters and multiply-accumulates that Keras, torchvision and the first paper
// print.
#include <gtest/gtest.h>

#include <array>

#include "layers/count.h"
#include "layers/network.h"

namespace gm {
namespace {

struct Built {
  NetworkCount count;
  int64_t backbone_total = 0, backbone_trainable = 0, backbone_macs = 0;  // without attention and head
};

Built build(const std::string& model, int size = 0, const std::vector<std::string>& sets = {}) {
  const std::string path = std::string(GM_SOURCE_DIR) + "/models/" + model + ".yaml";
  Architecture a = read_architecture(load_config(path, sets), path);
  if (size) a.input_size = size;
  ParameterTable table;
  Built b;
  b.count = count_network(build_network(a, table, {.loss = false}).graph);
  auto in_backbone = [](const std::string& name) {
    for (const char* other : {"cbam_", "top_se_", "hidden", "predictions"})
      if (name.rfind(other, 0) == 0) return false;
    return true;
  };
  for (const Parameter& p : table)
    if (in_backbone(p.name)) {
      b.backbone_total += p.shape.numel();
      if (p.trainable) b.backbone_trainable += p.shape.numel();
    }
  for (const LayerCount& l : b.count.layers)
    if (in_backbone(l.name)) b.backbone_macs += l.macs;
  return b;
}

TEST(CountsV2, Backbone) {
  const Built b = build("effv2s");
  EXPECT_EQ(b.backbone_total, 20331360);
  EXPECT_EQ(b.backbone_trainable, 20177488);
}

TEST(CountsV2, ThousandClasses) {
  const NetworkCount c = build("effv2s", 0, {"model.classes=1000"}).count;
  EXPECT_EQ(c.params_total, 21612360);
  EXPECT_EQ(c.params_trainable, 21458488);
}

TEST(CountsV2, CbamAndHead) {
  const struct {
    const char* model;
    std::vector<std::string> sets;
    int64_t total, trainable;
  } rows[] = {
      {"effv2s_cbam", {}, 20755308, 20601436},
      {"effv2s_cbam_fc4096", {}, 26030444, 25876572},
      {"effv2s_cbam", {"model.attention.bias=false"}, 20753868, 20599996},
      {"effv2s_cbam", {"model.attention.reduction=16"}, 20550428, 20396556},
      {"effv2s_cbam", {"model.attention.reduction=4"}, 21165068, 21011196},
      {"effv2s_cbam", {"model.hidden.units=128"}, 20907756, 20753884},
      {"effv2s_cbam", {"model.attention.type=none"}, 20344170, 20190298},
  };
  for (const auto& row : rows) {
    const Built b = build(row.model, 0, row.sets);
    const std::string what = std::string(row.model) + (row.sets.empty() ? "" : " " + row.sets[0]);
    EXPECT_EQ(b.count.params_total, row.total) << what;
    EXPECT_EQ(b.count.params_trainable, row.trainable) << what;
    EXPECT_EQ(b.backbone_total, 20331360) << what;
  }
}

// The total comes from the table of parameters, not from the layers.
TEST(CountsV2, ParametersOfLayersAddUpToTheTotal) {
  const NetworkCount c = build("effv2s_cbam").count;
  int64_t params = 0;
  for (const LayerCount& l : c.layers) params += l.params;
  EXPECT_EQ(params, c.params_total) << "the shared MLP counts once";
}

// Without top, trainable, by the number of leading fused stages.
TEST(CountsV2, FusedShares) {
  const struct {
    int fused;
    double millions;
  } rows[] = {{0, 19.53}, {3, 20.18}, {4, 22.72}, {5, 32.58}, {6, 74.74}};
  for (const auto& row : rows) {
    const Built b = build("effv2s", 0, {"model.fused_stages=" + std::to_string(row.fused)});
    EXPECT_NEAR(double(b.backbone_trainable) / 1e6, row.millions, 0.005) << row.fused;
    if (row.fused == 0 || row.fused == 5 || row.fused == 6)
      EXPECT_EQ(build("effv2s_fused" + std::to_string(row.fused)).backbone_trainable, b.backbone_trainable);
  }
}

// 2.849 G at 224 px is the backbone with its top convolution; 8.366 G at 384 px (torchvision's figure)
// includes the 1000-class layer. CBAM adds its shared MLP twice (2 * 2 * 1280 * 160) and 98 per pixel of the
// 7x7 map.
TEST(CountsV2, Macs) {
  const std::vector<std::string> classes{"model.classes=1000"};
  EXPECT_EQ(build("effv2s", 224, classes).backbone_macs, 2848615872);
  EXPECT_EQ(build("effv2s", 224, classes).count.macs, 2848615872 + 1280 * 1000);
  EXPECT_EQ(build("effv2s", 384, classes).backbone_macs, 8364337152);
  EXPECT_EQ(build("effv2s", 384, classes).count.macs, 8364337152 + 1280 * 1000);
  EXPECT_EQ(build("effv2s_cbam").count.macs, 2848615872 + 4 * 1280 * 160 + 98 * 49 + 1280 * 10);
}

// 1000 classes, at 224, 300 and 384 px, by the number of leading fused stages.
TEST(CountsV2, FusedShareMacs) {
  const struct {
    int fused;
    double giga[3];
  } rows[] = {{0, {1.69, 3.21, 4.96}},
              {3, {2.85, 5.31, 8.37}},
              {4, {3.37, 6.27, 9.91}},
              {5, {5.44, 10.08, 15.98}},
              {6, {7.62, 14.54, 22.40}}};
  for (const auto& row : rows)
    for (int i = 0; i < 3; ++i) {
      const int size = std::array{224, 300, 384}[i];
      const Built b =
          build("effv2s", size, {"model.classes=1000", "model.fused_stages=" + std::to_string(row.fused)});
      EXPECT_NEAR(double(b.count.macs) / 1e9, row.giga[i], 0.00501) << row.fused << " at " << size;
    }
}

}  // namespace
}  // namespace gm
