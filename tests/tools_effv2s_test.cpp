// EfficientNetV2-S with CBAM, narrowed, on files in the layout of Galaxy10 DECals: it can learn 32 images by
// heart, lowers the loss of ten classes, and a killed run continues bit for bit.

#include "tests/tools_test_util.h"

namespace gm {
namespace {

namespace fs = std::filesystem;
using test::expect_success;
using test::run;
using test::TempDir;

/// models/effv2s_cbam.yaml with its blocks in order, an eighth of the width, and fewer of each.
std::string narrow_config(int size) {
  YAML::Node config = YAML::LoadFile(std::string(GM_SOURCE_DIR) + "/models/effv2s_cbam.yaml");
  YAML::Node model = config["model"];
  auto narrow = [](YAML::Node filters) { filters = std::max(8, filters.as<int>() / 8); };
  narrow(model["stem"]["filters"]);
  narrow(model["head"]["filters"]);
  for (YAML::Node stage : model["stages"]) {
    narrow(stage["filters"]);
    stage["layers"] = std::min(2, stage["layers"].as<int>());
  }
  config["input"]["size"] = size;
  YAML::Emitter text;
  text << config;
  return text.c_str();
}

struct Row {
  double train_loss, train_accuracy, val_loss;
};
std::vector<Row> metrics_of_run(const std::string& folder) {
  const CsvTable t(folder + "/metrics.csv");
  std::vector<Row> rows;
  for (int64_t r = 0; r < t.rows(); ++r) {
    auto value = [&](const char* name) { return std::stod(t.cell(r, t.column(name))); };
    rows.push_back({value("train_loss"), value("train_accuracy"), value("val_loss")});
  }
  return rows;
}

class EffV2S : public testing::Test {
 protected:
  EffV2S() { test::write_text(config, narrow_config(32)); }
  std::string synthetic(int count) const {
    expect_success(run("gm_data", {"synth", "--classes", "galaxy10", "--count", std::to_string(count),
                                   "--size", "48", "--format", "png", "--quiet", "--out", dir / "set"}));
    return dir / "set";
  }
  /// 42 images of the folder's ten classes as one HDF5 file: a validation share of 0.2 leaves 32 to learn.
  std::string pack_42(const std::string& folder) const {
    const CsvTable t(folder + "/labels.csv");
    std::string text = "id_str,file_loc,label,class\n";
    int taken[10] = {};
    for (int64_t r = 0; r < t.rows(); ++r) {
      const std::string& label = t.cell(r, t.column("label"));
      const int k = std::stoi(label);
      if (taken[k] == (k < 2 ? 5 : 4)) continue;
      ++taken[k];
      text += t.cell(r, t.column("id_str")) + "," + folder + "/" + t.cell(r, t.column("file_loc")) + "," +
              label + "," + t.cell(r, t.column("class")) + "\n";
    }
    test::write_text(dir / "some.csv", text);
    return pack(dir / "some.csv");
  }
  std::string pack(const std::string& data) const {
    expect_success(run("gm_data", {"pack", data, "--quiet", "--out", dir / "packed.h5"}));
    return dir / "packed.h5";
  }
  std::vector<std::string> arguments(const std::string& data, const std::string& out,
                                     const std::vector<std::string>& settings) const {
    std::vector<std::string> a{config,     "--data", data,        "--out", dir / out,
                               "--device", "cpu",    "--threads", "2"};
    for (const std::string& setting : settings) a.insert(a.end(), {"--set", setting});
    return a;
  }
  /// Trains until it knows all 32 by heart, which the folded network of gm_eval must confirm.
  void expect_overfit(const std::string& folder) const {
    const std::string data = pack_42(folder);
    expect_success(run("gm_train", arguments(data, "run",
                                             {"augment.kind=none", "model.dropout=0",
                                              "model.stochastic_depth=0", "data.val_fraction=0.2",
                                              "train.batch=32", "train.epochs=80", "optimizer.lr=3.0e-3"})));
    const auto rows = metrics_of_run(dir / "run");
    EXPECT_EQ(rows.back().train_accuracy, 1);
    const auto r = run("gm_eval", {"--model", dir / "run/last.safetensors", "--data", data, "--split",
                                   "train", "--device", "cpu", "--quiet", "--out", dir / "eval"});
    expect_success(r);
    EXPECT_EQ(r.out, "accuracy 1.000000\n");
    EXPECT_EQ(CsvTable(dir / "eval/predictions.csv").rows(), 32);
  }

  TempDir dir;
  std::string config = dir / "narrow.yaml";
};

TEST_F(EffV2S, Learns32SyntheticGalaxiesByHeart) { expect_overfit(synthetic(120)); }

TEST_F(EffV2S, Learns32RealGalaxiesByHeart) {
  const char* shared = std::getenv("GM_SHARED_DATA");
  if (!shared) GTEST_SKIP() << "GM_SHARED_DATA is not set";
  expect_overfit((fs::path(shared) / "efigi10").string());
}

TEST_F(EffV2S, LowersTheLossAndResumesBitForBitFromHdf5) {
  const std::string data = pack(synthetic(200));  // 180 for training: 22 steps an epoch
  const std::vector<std::string> settings{
      "input.size=48",       "model.dropout=0.1",        "model.stochastic_depth=0.1", "augment.kind=none",
      "optimizer.lr=3.0e-3", "schedule.warmup_epochs=1", "train.label_smoothing=0",    "train.epochs=8",
      "train.batch=8",       "train.checkpoint_steps=5"};
  expect_success(run("gm_train", arguments(data, "whole", settings)));
  const auto rows = metrics_of_run(dir / "whole");
  ASSERT_EQ(rows.size(), 8u);
  EXPECT_LT(rows.back().train_loss, 0.9 * rows.front().train_loss);
  EXPECT_LT(rows.back().val_loss, rows.front().val_loss);

  const std::string last = dir / "killed/last.safetensors";
  {
    test::Process p("gm_train", arguments(data, "killed", settings), {});
    ASSERT_TRUE(test::wait_for_mid_epoch(p, last)) << p.err();
    p.send(SIGKILL);
    EXPECT_EQ(p.wait(), -SIGKILL);
  }
  EXPECT_LT(std::stoi(read_safetensors(last).metadata.at("step")), 176)
      << "stopped too late to mean anything";
  auto resume = arguments(data, "killed", settings);
  resume.push_back("--resume");
  expect_success(run("gm_train", resume));
  test::expect_same_tensors(dir / "whole/last.safetensors", last);
  EXPECT_EQ(test::comparable_metrics(dir / "whole/metrics.csv"),
            test::comparable_metrics(dir / "killed/metrics.csv"));
}

}  // namespace
}  // namespace gm
