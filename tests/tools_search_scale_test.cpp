// gm_search scale, resolution and finalists: networks trained from scratch by processes of their own.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "data/csv.h"
#include "layers/compound_scaling.h"
#include "tests/tools_test_util.h"
#include "tools/search/candidate_process.h"

namespace gm {
namespace {

namespace fs = std::filesystem;
using test::expect_failure;
using test::expect_success;
using test::run;
using test::TempDir;

TEST(CompoundScaling, GridHoldsTheConstraintAndThePapersFactors) {
  const auto grid = scaling_grid(0.05, 0.05);
  bool paper = false;  // EfficientNet's 1.2, 1.1, 1.15: cost 1.92; S2's are on a grid of this step, too
  for (const ScalingFactors& f : grid) {
    EXPECT_NEAR(f.alpha * f.beta * f.beta * f.gamma * f.gamma, 2, 0.05 + 1e-9);
    EXPECT_GE(std::min({f.alpha, f.beta, f.gamma}), 1);
  }
  for (const ScalingFactors& f : scaling_grid(0.05, 0.1))
    paper |= f.alpha == 1.2 && f.beta == 1.1 && f.gamma == 1.15;
  EXPECT_TRUE(paper);
  EXPECT_THROW(scaling_grid(0.7, 0.001), Error);
}

class Scale : public testing::Test {
 protected:
  Scale() {
    test::write_text(config, test::tiny_config());
    expect_success(run("gm_data", {"synth", "--classes", "gz5", "--count", "80", "--size", "32", "--format",
                                   "png", "--quiet", "--out", data}));
  }
  std::vector<std::string> arguments(const std::string& command, const std::vector<std::string>& more,
                                     const std::string& epochs = "1") const {
    std::vector<std::string> a{command, config,      "--data", data,       "--out", dir / "out", "--device",
                               "cpu",   "--threads", "2",      "--epochs", epochs,  "--quiet"};
    a.insert(a.end(), more.begin(), more.end());
    return a;
  }

  TempDir dir;
  std::string config = dir / "tiny.yaml", data = dir / "set";
};

TEST_F(Scale, WritesNetworksThatTrainAndATableOfThem) {
  const std::vector<std::string> grid{"--step", "0.5", "--tolerance", "0.3", "--phi", "1,2"};
  expect_success(run("gm_search", arguments("scale", grid)));
  const CsvTable table(dir / "out/report.csv");
  const auto combinations = scaling_grid(0.5, 0.3);
  ASSERT_EQ(table.rows(), static_cast<int64_t>(combinations.size()) + 1);
  for (int64_t i = 0; i < table.rows(); ++i) {
    const double alpha = std::stod(table.cell(i, 0)), beta = std::stod(table.cell(i, 1));
    std::string name = i ? fmt::format("a{:g}_b{:g}_g{}", alpha, beta, table.cell(i, 2)) : "base";
    if (!fs::exists(dir / ("out/" + name))) {  // rounds to the network of earlier factors
      int64_t same = 1;
      while (same < i && table.cell(same, table.column("macs")) != table.cell(i, table.column("macs")))
        ++same;
      ASSERT_LT(same, i) << name;
      name = fmt::format("a{}_b{}_g{}", table.cell(same, 0), table.cell(same, 1), table.cell(same, 2));
    }
    const auto j =
        nlohmann::json::parse(run("gm_model", {dir / ("out/" + name + "/candidate.yaml"), "--json"}).out);
    EXPECT_EQ(std::to_string(j["macs"].get<int64_t>()), table.cell(i, table.column("macs")));
    EXPECT_EQ(std::to_string(j["params_trainable"].get<int64_t>()),
              table.cell(i, table.column("parameters")));
    const CsvTable metrics(dir / ("out/" + name + "/metrics.csv"));
    EXPECT_DOUBLE_EQ(std::stod(metrics.cell(metrics.rows() - 1, metrics.column("val_accuracy"))),
                     std::stod(table.cell(i, table.column("accuracy"))));
  }
  for (const char* phi : {"1", "2"})
    expect_success(run("gm_model", {dir / (std::string("out/tiny_phi") + phi + ".yaml"), "--json"}));
  EXPECT_TRUE(fs::exists(dir / "out/accuracy.svg"));
  // Again: nothing is trained twice.
  const auto before = fs::last_write_time(dir / "out/base/last.safetensors");
  expect_success(run("gm_search", arguments("scale", grid)));
  EXPECT_EQ(before, fs::last_write_time(dir / "out/base/last.safetensors"));
}

TEST_F(Scale, PartsOnSeveralMachinesMakeOneTable) {
  const std::vector<std::string> sizes{"--sizes", "16,24,32"};
  auto part = [&](const char* only) {
    std::vector<std::string> more = sizes;
    more.insert(more.end(), {"--only", only});
    const test::Ran r = run("gm_search", arguments("resolution", more));
    expect_success(r);
    EXPECT_EQ(r.out + r.err, "");  // --quiet, with networks missing and without
  };
  part("0/2");
  EXPECT_FALSE(fs::exists(dir / "out/report.csv"));
  part("1/2");
  EXPECT_EQ(CsvTable(dir / "out/report.csv").rows(), 3);
  fs::rename(dir / "out", dir / "parts");
  std::vector<std::string> jobs = sizes;
  jobs.insert(jobs.end(), {"--jobs", "3"});
  expect_success(run("gm_search", arguments("resolution", jobs)));
  const CsvTable one(dir / "parts/report.csv"), other(dir / "out/report.csv");
  for (int64_t i = 0; i < 3; ++i)
    for (const char* column : {"px", "accuracy", "loss", "macs"})
      EXPECT_EQ(one.cell(i, one.column(column)), other.cell(i, other.column(column)));
}

// A claim is a lock on the candidate's folder: whoever holds it trains, the others go on to the next one.
TEST_F(Scale, ProcessesThatShareTheFolderTrainEachNetworkOnce) {
  const std::vector<std::string> sizes{"--sizes", "16,20,24,28,32"};
  test::Process first("gm_search", arguments("resolution", sizes), {}),
      second("gm_search", arguments("resolution", sizes), {});
  EXPECT_EQ(first.wait(), 0) << first.err();
  EXPECT_EQ(second.wait(), 0) << second.err();
  EXPECT_EQ(CsvTable(dir / "out/report.csv").rows(), 5);
  for (const char* px : {"16", "20", "24", "28", "32"}) {
    const std::string log = test::read_text(dir / (std::string("out/tiny_") + px + "px/log.txt"));
    EXPECT_EQ(log.find("device: "), log.rfind("device: ")) << log;
  }
  FolderLock held(dir / "out");
  EXPECT_TRUE(held.held());
  EXPECT_FALSE(FolderLock(dir / "out").held());
}

TEST_F(Scale, KilledItGoesOnFromTheCheckpoint) {
  const std::vector<std::string> sizes{"--sizes", "32"};
  auto metrics = [&] { return test::comparable_metrics(dir / "out/tiny_32px/metrics.csv"); };
  expect_success(run("gm_search", arguments("resolution", sizes, "6")));
  const std::string whole = metrics();
  fs::remove_all(dir / "out");
  test::Process p("gm_search", arguments("resolution", sizes, "6"), {});
  while (p.running() && !fs::exists(dir / "out/tiny_32px/last.safetensors"))
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  p.send(SIGKILL);
  ASSERT_EQ(p.wait(), -SIGKILL) << "ended before it could be killed";
  EXPECT_FALSE(fs::exists(dir / "out/tiny_32px/result.json"));
  // Its gm_train ends with it, after a checkpoint, and then lets go of the folder.
  for (int i = 0; i < 1000 && !FolderLock(dir / "out/tiny_32px").held(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  expect_success(run("gm_search", arguments("resolution", sizes, "6")));
  EXPECT_EQ(metrics(), whole);
  EXPECT_NE(test::read_text(dir / "out/tiny_32px/log.txt").find("resuming at step"), std::string::npos);
}

TEST_F(Scale, AFailedNetworkStopsNoOther) {
  expect_success(run("gm_search", arguments("resolution", {"--sizes", "16,32", "--only", "1/2"})));
  fs::create_directories(dir / "out/tiny_16px");
  test::write_text(dir / "out/tiny_16px/last.safetensors", "no checkpoint");
  const test::Ran r = run("gm_search", arguments("resolution", {"--sizes", "16,32"}));
  EXPECT_EQ(r.code, 1) << r.err;
  EXPECT_NE(r.err.find("tiny_16px failed: "), std::string::npos) << r.err;
  EXPECT_NE(r.err.find("1 of 2 networks failed"), std::string::npos) << r.err;
  EXPECT_TRUE(fs::exists(dir / "out/tiny_32px/result.json"));
}

TEST_F(Scale, ImpossibleSettingsAreOneLine) {
  auto refused = [&](const std::vector<std::string>& a, const std::vector<std::string>& parts) {
    expect_failure(run("gm_search", a), 1, parts);
    EXPECT_FALSE(fs::exists(dir / "out"));
  };
  refused(arguments("scale", {"--step", "0.7", "--tolerance", "0.001"}), {"no alpha, beta, gamma"});
  refused(arguments("scale", {"--sizes", "32"}), {"--sizes has 1 sizes for 3"});
  refused(arguments("resolution", {"--sizes", "32", "--set", "model.classes=4"}), {"5 classes, the model 4"});
  test::write_text(dir / "one.csv", "file_loc,label\n" + data + "/images/0.png,round\n");
  expect_failure(run("gm_search", {"resolution", config, "--data", dir / "one.csv", "--sizes", "32", "--out",
                                   dir / "out"}),
                 1, {"one.csv", "has one class"});
  for (const char* part : {"2/2", "-1/2", "1", "1/", "/2", "0/2x", "4294967296/4294967299"})
    expect_failure(run("gm_search", arguments("resolution", {"--sizes", "32", "--only", part})), 2,
                   {"--only", part, "is not I/N"});
  refused(arguments("scale", {"--factors", "2,2,2"}), {"--factors 2,2,2", "is 32, not 2 within 0.1"});
  refused(arguments("scale", {"--phi", "1,2", "--sizes", "32,5000"}), {"scaled by phi 2", "input.size"});
  test::write_text(dir / "out", "");
  expect_failure(run("gm_search", arguments("resolution", {"--sizes", "32"})), 1,
                 {"out: cannot create the folder"});
  expect_failure(run("gm_search", arguments("scale", {"--factors", "1.15,1.1,1.2"})), 1,
                 {"out: cannot create the folder"});
  expect_failure(run("gm_search", {"finalists", dir / "none"}), 1, {"none/config.yaml"});
}

TEST(CompoundScaling, SizesAreRounded) {
  EXPECT_EQ(scaled_size(64, {1.2, 1.1, 1.15}, 1), 74);  // 73.6
  EXPECT_EQ(scaled_size(64, {1.2, 1.1, 1.15}, 2), 85);  // 84.64
  EXPECT_EQ(scaled_size(64, {1.2, 1.1, 1.15}, 0), 64);
}

TEST(CompoundScaling, FactorsComeIntoTheConfiguration) {
  const YAML::Node base = parse_yaml(test::tiny_config(), "tiny");
  const YAML::Node scaled = scaled_config(base, {1.2, 1.1, 1.15}, 3, 48, "tiny");
  EXPECT_EQ(scaled["model"]["scaling"]["alpha"].Scalar(), "1.2");
  EXPECT_EQ(scaled["model"]["scaling"]["beta"].Scalar(), "1.1");
  EXPECT_EQ(scaled["model"]["scaling"]["phi"].Scalar(), "3");
  EXPECT_EQ(scaled["input"]["size"].as<int>(), 48);
  EXPECT_FALSE(base["model"]["scaling"]) << "the base stays as it is";
  EXPECT_ERROR(scaled_config(scaled, {1.2, 1.1, 1.15}, 1, 48, "scaled.yaml"),
               "scaled.yaml: model.scaling.phi is 3");
}

TEST(CompoundScaling, ToleranceReachesItsOwnEdge) {
  // 1 * 1.5^2 = 2.25 and 1.5 * 1 * 1 = 1.5 are 0.25 and 0.5 from 2.
  const auto grid = scaling_grid(0.5, 0.25), wide = scaling_grid(0.5, 0.5);
  EXPECT_EQ(grid.size(), 3u);  // 2,1,1; 1,1.5,1; 1,1,1.5
  EXPECT_EQ(wide.size(), 5u);  // and 1.5,1,1; 2.5,1,1
}

}  // namespace
}  // namespace gm
