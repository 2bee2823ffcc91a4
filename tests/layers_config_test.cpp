// Errors of configurations: the file, the line and the nearest valid key.
#include <map>

#include "layers/architecture.h"
#include "tests/data_test_util.h"
#include "tools/run_config.h"

namespace gm {
namespace {

using test::TempDir;

constexpr const char* kConfig = R"(model:
  classes: 5
  stem: {filters: 8}
  stages:
    - {block: mbconv, filters: 8}
input:
  size: 32
recipe: quick
train:
  epochs: 3
recipes:
  quick:
    optimizer: {name: sgd, lr: 0.5}
    train: {epochs: 9, batch: 4}
)";

class Config : public testing::Test {
 protected:
  /// The configuration with one piece of text replaced.
  RunConfig read(const std::string& from = "", const std::string& to = "",
                 const std::vector<std::string>& sets = {}) {
    std::string text = kConfig;
    if (!from.empty()) {
      EXPECT_NE(text.find(from), std::string::npos) << from;
      text.replace(text.find(from), from.size(), to);
    }
    test::write_text(path, text);
    return read_run_config(load_config(path, sets), path);
  }
  TempDir dir;
  std::string path = dir / "c.yaml";
};

TEST_F(Config, OwnKeysWinOverTheRecipeAndSetWinsOverBoth) {
  const RunConfig r = read();
  EXPECT_EQ(r.train.epochs, 3);
  EXPECT_EQ(r.train.batch, 4);
  EXPECT_EQ(r.optimizer.kind, OptimizerConfig::sgd);
  EXPECT_EQ(read("", "", {"train.epochs=7"}).train.epochs, 7);
  EXPECT_EQ(read("", "", {"data.val_fraction=0.2"}).split.val, 0.2);
  // A section whose keys are all commented out is not given.
  EXPECT_EQ(read("model:", "optimizer:\n# lr: 3\nmodel:").optimizer.kind, OptimizerConfig::sgd);
}

TEST_F(Config, AnAliasThatHoldsItselfIsAnError) {
  EXPECT_ERROR(read("model:", "train: &t\n  l2: *t\nmodel:"), "nested too deep");
  const std::string set = "train=&t {l2: *t}";
  EXPECT_ERROR(read("", "", {set}), "--set " + set + ": nested too deep");
}

TEST_F(Config, AKeyTwiceInOneSetIsAnError) {
  const std::string set = "train={epochs: 3, epochs: 4}";
  EXPECT_ERROR(read("", "", {set}), "--set " + set + ":1: 'epochs' is given twice");
}

TEST_F(Config, ScalingHasLimits) {
  const std::string large = "model:\n  scaling: {alpha: 4, beta: 1, phi: 20}",
                    wide = "model:\n  scaling: {beta: 4, phi: 20}";
  EXPECT_ERROR(read("model:", large),
               path + ":6: model.stages[0].layers: model.scaling makes more than 1000");
  EXPECT_ERROR(read("model:", wide), path + ":4: model.stem.filters: model.scaling makes more than 65536");
}

TEST_F(Config, ErrorsNameFileLineAndNearestKey) {
  EXPECT_ERROR(read("classes", "clases"), path + ":2: model.clases: unknown key; did you mean 'classes'?");
  EXPECT_ERROR(read("input:", "inputs:"), path + ":6: inputs: unknown key; did you mean 'input'?");
  EXPECT_ERROR(read("epochs: 3", "epoch: 3"), path + ":10: train.epoch: unknown key; did you mean 'epochs'?");
  EXPECT_ERROR(read("block: mbconv, ", "blok: mbconv, "), path + ":5: model.stages[0].blok");
  EXPECT_ERROR(read("lr: 0.5", "lr: fast"), path + ":13: optimizer.lr: must be a number");
  EXPECT_ERROR(read("batch: 4", "batch: 0"), path + ":14: train.batch: 0 is out of range");
  EXPECT_ERROR(read("size: 32", "size: 32.5"), path + ":7: input.size: must be a whole number");
  EXPECT_ERROR(read("name: sgd", "name: sdg"), path + ":13: optimizer.name: 'sdg' is not one of");
  for (const std::string odd : {".nan", ".inf", "-.inf"}) {
    EXPECT_ERROR(read("lr: 0.5", "lr: " + odd), path + ":13: optimizer.lr: must be a number");
    for (const std::string& mean : {odd, "[1, 2, " + odd + "]"})
      EXPECT_ERROR(read("size: 32", "size: 32\n  scaling: {mean: " + mean + "}"),
                   path + ":8: input.scaling.mean: must be ");
  }
  EXPECT_ERROR(read("recipe: quick", "recipe: slow"), "recipe 'slow' is not one of quick");
  EXPECT_ERROR(read("  classes: 5\n", ""), "model.classes: is required");
  EXPECT_ERROR(read("model:", "model: ["), path);
}

TEST_F(Config, ErrorsOfSetDoNotBlameTheFile) {
  EXPECT_ERROR(read("", "", {"train.epochs=many"}), path + " (--set): train.epochs: must be a number");
  EXPECT_ERROR(read("", "", {"train.epoch=3"}), path + " (--set): train.epoch: unknown key");
  EXPECT_ERROR(read("", "", {"trian.epochs=3"}),
               path + " (--set): trian: unknown key; did you mean 'train'?");
  EXPECT_ERROR(read("", "", {"model.classes.x=3"}), "'classes' is not a section");
}

TEST(Sets, GiveAKeyByItsPathAndInASection) {
  const std::string epsilon = "model.batch_norm.epsilon";
  EXPECT_TRUE(is_set({"train.epochs=3", epsilon + "=1"}, epsilon));
  EXPECT_TRUE(is_set({"model.batch_norm={epsilon: 1}"}, epsilon));
  EXPECT_TRUE(is_set({"model={se: 0, batch_norm: {epsilon: 1}}"}, epsilon));
  EXPECT_TRUE(is_set({"input.scaling.mean=1"}, "input.scaling"));
  EXPECT_FALSE(is_set({"model.batch_norm={momentum: 1}"}, epsilon));
  EXPECT_FALSE(is_set({"model={batch_norm: 3}"}, epsilon));
  EXPECT_FALSE(is_set({"model=~"}, epsilon));
  EXPECT_FALSE(is_set({epsilon + "s=1", "mode=1"}, epsilon));
  EXPECT_FALSE(is_set({}, epsilon));
}

TEST_F(Config, AugmentationOutOfRangeIsNamedWithItsLine) {
  auto augment = [&](const std::string& keys) {
    return read("recipe: quick", "augment: {kind: gz, " + keys + "}\nrecipe: quick").transform;
  };
  for (const auto& [keys, message] : std::map<std::string, std::string>{
           {"rotation_deg: 181", "rotation_deg: 181 is out of range [0, 180]"},
           {"shear_deg: -1", "shear_deg: -1 is out of range [0, 80]"},
           {"zoom: 7", "zoom: must be 0.1 <= first <= second <= 4"},
           {"zoom: [0, 1]", "zoom: must be 0.1 <= first <= second <= 4"},
           {"zoom: [1.2, 0.8]", "zoom: must be 0.1 <= first <= second <= 4"},
           {"crop: [240, 160]", "crop: must be 0 <= first <= second <= 4096"},
           {"crop: [160, 4097]", "crop: must be 0 <= first <= second <= 4096"},
           {"crop_eval: 4097", "crop_eval: 4097 is out of range [0, 4096]"},
           {"brightness: 1.5", "brightness: 1.5 is out of range [0, 1]"},
           {"hue: 0.6", "hue: 0.6 is out of range [0, 0.5]"},
           {"shift_px: 32", "shift_px: 32 is out of range [0, 31]"},  // of 32 px
           {"shift_px: 1.5", "shift_px: must be a whole number"},
           {"random_ops: 5", "random_ops: 5 is out of range [0, 4]"},
           {"magnitude: 31", "magnitude: 31 is out of range [0, 30]"},
           {"zom: 1", "zom: unknown key; did you mean 'zoom'?"}})
    EXPECT_ERROR(augment(keys), path + ":8: augment." + message);
  EXPECT_ERROR(read("", "", {"augment.crop=[240, 160]"}),
               path + " (--set): augment.crop: must be 0 <= first");
  EXPECT_ERROR(read("", "", {"augment.shift_px=32"}),
               path + " (--set): augment.shift_px: 32 is out of range");

  // Their ends are allowed, and a key that is absent has the value of `kind`.
  const TransformConfig t =
      augment("zoom: [0.1, 4], crop: 4096, crop_eval: 4096, shift_px: 31, random_ops: 4, hue: 0.5");
  EXPECT_EQ(t.zoom_min, 0.1);
  EXPECT_EQ(t.zoom_max, 4);
  EXPECT_EQ(t.crop_min, 4096);
  EXPECT_EQ(t.crop_max, 4096);
  EXPECT_EQ(t.crop_eval, 4096);
  EXPECT_EQ(t.shift_px, 31);
  EXPECT_EQ(t.random_ops, 4);
  EXPECT_EQ(t.colour.hue, 0.5);
  EXPECT_EQ(t.rotation_deg, 180);
  EXPECT_EQ(t.colour.saturation, 0.2);
  EXPECT_TRUE(t.flip_x && t.flip_y);
}

TEST_F(Config, TheFirstPapersRecipeSplits80To10To10) {
  const std::string file = std::string(GM_SOURCE_DIR) + "/models/effv2s_cbam.yaml";
  const YAML::Node data = load_config(file, {"recipe=paper"})["data"];
  EXPECT_EQ(data["val_fraction"].as<double>(), 0.1);
  EXPECT_EQ(data["test_fraction"].as<double>(), 0.1);
}

}  // namespace
}  // namespace gm
