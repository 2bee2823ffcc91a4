// Training that starts from stored weights: frozen layers, new heads.
#include "data/csv.h"
#include "tests/training_runs.h"
#include "tools/model_file.h"
#include "tools/run_config.h"

namespace gm {
namespace {

using test::expect_failure;
using test::expect_success;
using test::Train;

// Training that starts from a stored network, for one epoch. The configuration freezes some layers.
class FineTune : public Train {
 protected:
  FineTune() {
    std::string text = test::tiny_config();
    text.replace(text.find("train: {"), 8, "train: {freeze: [stem, block1], ");
    test::write_text(config, text);
  }
  std::vector<std::string> from_start(const std::vector<std::string>& more) const {
    std::vector<std::string> options{"--epochs", "1", "--init", model};
    options.insert(options.end(), more.begin(), more.end());
    return options;
  }
  TensorFile tuned(const std::string& out, const std::vector<std::string>& more) {
    train(out, from_start(more));
    return read_safetensors(last(out));
  }
  bool as_at_start(const TensorFile& f, const std::string& name) const {
    return f.at(name).bytes == start.at(name).bytes;
  }

  std::string model = dir / "start.safetensors";
  TensorFile start = test::write_tiny_model(model);
};

TEST_F(FineTune, FrozenLayersStayBitForBitAndOthersMove) {
  const TensorFile stages = tuned("stages", {});
  for (const auto& [name, t] : start.tensors)
    EXPECT_EQ(as_at_start(stages, name), name.starts_with("stem") || name.starts_with("block1")) << name;
  EXPECT_NE(test::read_text(dir / "stages/log.txt").find("starting from " + model), std::string::npos);
}

TEST_F(FineTune, FrozenBatchNormsStayWithEveryOptimizer) {
  for (const char* optimizer : {"adam", "sgd"}) {
    const TensorFile norms = tuned(optimizer, {"--set", "train.freeze=[]", "--set", "train.freeze_bn=true",
                                               "--set", std::string("optimizer.name=") + optimizer});
    for (const auto& [name, t] : start.tensors)
      EXPECT_EQ(as_at_start(norms, name), name.find("bn/") != std::string::npos) << name;
  }
}

TEST_F(FineTune, WeightsAndLayersThatDoNotFitAreNamed) {
  expect_failure(test::run("gm_train", arguments("x", from_start({"--set", "model.se=0.5"}))), 1,
                 {model, "se_reduce", "shape"});
  expect_failure(test::run("gm_train", arguments("x", {"--init", dir / "none"})), 1, {"none"});
  expect_failure(test::run("gm_train", arguments("x", {"--set", "train.freeze=[blok1]"})), 1,
                 {"train.freeze", "blok1"});
}

TEST_F(Train, AnotherNumberOfClassesGetsANewHead) {
  const std::string model = dir / "start.safetensors", other = dir / "ten";
  test::write_tiny_model(model);
  expect_success(test::run("gm_data", {"synth", "--classes", "galaxy10", "--count", "60", "--size", "32",
                                       "--format", "png", "--quiet", "--out", other}));
  expect_success(test::run("gm_train",
                           {config, "--data", other, "--out", dir / "a", "--set", "model.classes=10", "--set",
                            "model.padding=symmetric", "--init", model, "--epochs", "1", "--device", "cpu"}));
  const std::string log = test::read_text(dir / "a/log.txt");
  EXPECT_NE(log.find("(5 classes); the head is new: 10 classes"), std::string::npos) << log;
  EXPECT_NE(log.find("padding symmetric"), std::string::npos) << log;  // --set stays

  // What the weights settled needs no option again; another answer is refused.
  const std::vector<std::string> again{config,  "--data",           other,      "--out", dir / "a",
                                       "--set", "model.classes=10", "--device", "cpu",   "--epochs",
                                       "1",     "--resume"};
  expect_success(test::run("gm_train", again));
  std::vector<std::string> otherwise = again;
  otherwise.insert(otherwise.end(), {"--set", "model.padding=same"});
  expect_failure(test::run("gm_train", otherwise), 1, {"model.padding is symmetric there and same here"});
}

// --set has the last word also where it gives a whole section; what that leaves out is the weights'.
TEST(Conventions, SetStaysWhereItGivesASection) {
  Architecture from;
  from.same_padding = false;
  from.bn_epsilon = 0.01;
  from.mean = {1, 2, 3};
  auto adopted = [&](const std::vector<std::string>& sets) {
    YAML::Node config = load_config(std::string(GM_SOURCE_DIR) + "/models/effg0.yaml", sets);
    adopt_model_conventions(config, from, sets);
    return read_run_config(config, "adopted").architecture;
  };
  EXPECT_EQ(adopted({}).bn_epsilon, 0.01);
  EXPECT_EQ(adopted({}).mean, from.mean);
  EXPECT_EQ(adopted({"model.batch_norm={epsilon: 1e-5}"}).bn_epsilon, 1e-5);
  EXPECT_EQ(adopted({"model.batch_norm={momentum: 0.5}"}).bn_epsilon, 0.01);
  const Architecture input = adopted({"input={size: 40, scaling: {mean: 7}}"});
  EXPECT_EQ(input.mean, std::vector<double>(3, 7));
  EXPECT_EQ(input.bn_epsilon, 0.01);
  EXPECT_EQ(adopted({"input={size: 40}"}).mean, from.mean);
}

// As many classes, but other ones: what the head has learnt of "round" says nothing about "edge-on".
TEST_F(Train, ClassesOfOtherNamesGetANewHead) {
  train("a", {"--epochs", "1"});
  const std::string catalog = data + "/labels.csv";
  const CsvTable table(catalog);
  std::string renamed = "id_str,file_loc,label,class\n";
  for (int64_t r = 0; r < table.rows(); ++r)
    renamed += table.cell(r, 0) + "," + table.cell(r, 1) + "," + table.cell(r, table.column("label")) +
               ",kind" + table.cell(r, table.column("label")) + "\n";
  auto begin = [&](const std::string& out) {
    train(out, {"--epochs", "1", "--init", dir / "a"});
    return test::read_text(dir / (out + "/log.txt"));
  };
  const std::string same = begin("b");
  EXPECT_EQ(same.find("the head is new"), std::string::npos) << same;
  test::write_text(catalog, renamed);
  const std::string other = begin("c");
  EXPECT_NE(other.find("the head is new: 5 classes of other names"), std::string::npos) << other;
}

}  // namespace
}  // namespace gm
