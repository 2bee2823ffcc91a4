// gm_compare: the numbers of several metrics.json, unchanged, and the curves of their runs.
#include "tools/comparison.h"

#include <nlohmann/json.hpp>

#include "tests/tools_test_util.h"

namespace gm {
namespace {

namespace fs = std::filesystem;
using test::expect_failure;
using test::expect_success;
using test::run;

class Compare : public testing::Test {
 protected:
  Compare() {
    fs::create_directories(dir / "run");
    test::write_tiny_model(dir / "run/best.safetensors");
    test::write_text(
        dir / "run/metrics.csv",
        "epoch,train_loss,train_accuracy,val_loss,val_accuracy,lr,images_per_second,data_wait\n"
        "1,1.5,0.3,1.4,0.4,0.001,100,0\n2,1.2,0.5,1.1,0.625,0.001,100,0\n3,1.1,0.6,1.3,0.5,0.001,100,0\n");
    fs::create_directories(dir / "set/images");
    std::string csv = "id_str,label\n";
    for (int i = 0; i < 12; ++i) {
      write_image(dir / "set/images/g" + std::to_string(i) + ".png", test::gradient(32, 32, i * 20));
      csv += "g" + std::to_string(i) + "," + std::to_string(i % 5) + "\n";
    }
    test::write_text(dir / "set/labels.csv", csv);
  }
  std::string evaluated(const std::string& name, const std::string& data,
                        std::vector<std::string> more = {}) {
    more.insert(more.begin(),
                {"--model", dir / "run", "--data", data, "--device", "cpu", "--quiet", "--out", dir / name});
    expect_success(run("gm_eval", more));
    return dir / name;
  }
  test::TempDir dir;
};

TEST_F(Compare, ShowsWhatGmEvalMeasured) {
  const std::string a = evaluated("a", dir / "set", {"--speed"}), b = evaluated("b", dir / "set", {"--tta"}),
                    out = dir / "out";
  const auto r = run("gm_compare", {a, b + "/metrics.json", "--out", out});
  expect_success(r);
  EXPECT_EQ(r.err, "");
  const CsvTable table(out + "/comparison.csv");
  ASSERT_EQ(table.rows(), 2);
  EXPECT_EQ(table.cell(0, 0), "tiny");
  EXPECT_EQ(table.cell(1, 0), "tiny (2)");
  for (int row : {0, 1}) {
    const auto j = nlohmann::json::parse(test::read_text((row ? b : a) + "/metrics.json"));
    for (const char* key : {"input", "n", "accuracy", "macro_precision", "macro_recall", "weighted_f1",
                            "params_total", "macs", "flops_eq13"})
      EXPECT_NEAR(std::stod(table.cell(row, table.column(key))), j[key].get<double>(), 1e-6) << key;
    EXPECT_NEAR(std::stod(table.cell(row, table.column("accuracy_low"))), j["accuracy_ci95"][0].get<double>(),
                1e-6);
  }
  const auto j = nlohmann::json::parse(test::read_text(a + "/metrics.json"));
  EXPECT_NEAR(std::stod(table.cell(0, table.column("latency_ms"))), j["speed"][0]["median_ms"].get<double>(),
              1e-4);
  EXPECT_EQ(table.cell(1, table.column("latency_ms")), "");
  char cell[64];
  std::snprintf(cell, sizeof cell, "| tiny | 32 | %.1f | ", 100 * j["accuracy"].get<double>());
  EXPECT_NE(r.out.find(cell), std::string::npos) << r.out;
  EXPECT_EQ(test::read_text(out + "/accuracy_by_epoch.svg"),
            chart_svg({.title = "Validation accuracy",
                       .x = {.label = "epoch"},
                       .y = {.label = "accuracy"},
                       .series = {{.name = "tiny", .x = {1, 2, 3}, .y = {.4, .625, .5}},
                                  {.name = "tiny (2)", .x = {1, 2, 3}, .y = {.4, .625, .5}}}}));
  for (const char* chart : {"accuracy_by_macs.svg", "accuracy_by_parameters.svg"})
    EXPECT_NE(test::read_text(out + "/" + chart).find(">tiny (2)</text>"), std::string::npos) << chart;
}

TEST_F(Compare, SaysWhatDoesNotFit) {
  const std::string a = evaluated("a", dir / "set");
  fs::copy(dir / "set", dir / "other", fs::copy_options::recursive);
  fs::remove(dir / "run/metrics.csv");
  const auto r = run("gm_compare", {a, evaluated("b", dir / "other")});
  expect_success(r);
  EXPECT_NE(r.err.find("not the same images"), std::string::npos) << r.err;
  EXPECT_NE(r.err.find("tiny (2) has no metrics.csv"), std::string::npos) << r.err;
  // One set of images under two spellings, and other images of one set.
  const std::string b = evaluated("c", dir / "set/labels.csv");
  EXPECT_EQ(run("gm_compare", {a, b}).err.find("not the same images"), std::string::npos);
  const std::string predictions = test::read_text(b + "/predictions.csv");
  const size_t id = predictions.find('\n') + 1;
  test::write_text(b + "/predictions.csv", std::string(predictions).insert(id, "x"));
  EXPECT_NE(run("gm_compare", {a, b}).err.find("not the same images"), std::string::npos);
  expect_failure(run("gm_compare", {dir / "set"}), 1, {dir / "set/metrics.json", "gm_eval --out"});
  test::write_text(dir / "m.json", "{");
  expect_failure(run("gm_compare", {dir / "m.json"}), 1, {dir / "m.json", "not JSON"});
  test::write_text(dir / "m.json", "{\"name\": 3}");
  expect_failure(run("gm_compare", {dir / "m.json"}), 1,
                 {dir / "m.json", "not written by gm_eval of this version: type must be string"});
  expect_failure(run("gm_compare", {a, "--quiet", "--out", a + "/metrics.json/x"}), 1, {"cannot create"});
  test::write_text(dir / "run/metrics.csv", "epoch,loss\n1,2\n");
  expect_failure(run("gm_compare", {a}), 1, {dir / "run/metrics.csv", "no column train_loss"});
  expect_failure(run("gm_compare", {}), 2, {"evaluations"});
}

TEST_F(Compare, FindsTheRunInAFolderWhoseNameIsNotUtf8) {
  const std::string run_folder = dir / "run\xE9";
  fs::rename(dir / "run", run_folder);
  expect_success(run("gm_eval", {"--model", run_folder, "--data", dir / "set", "--device", "cpu", "--quiet",
                                 "--out", dir / "a"}));
  const auto r = run("gm_compare", {dir / "a"});
  expect_success(r);
  EXPECT_EQ(r.err, "");
}

TEST(Comparison, TellsNetworksApart) {
  std::vector<ComparedNetwork> networks;
  for (auto [name, input] : {std::pair{"G0", 96}, {"G1", 64}, {"G0", 32}, {"G0", 32}, {"G1", 64}}) {
    ComparedNetwork n;
    n.name = name;
    n.input = input;
    networks.push_back(n);
  }
  tell_apart(networks);
  std::string names;
  for (const ComparedNetwork& n : networks) names += n.name + "; ";
  EXPECT_EQ(names, "G0, 96 px; G1; G0, 32 px; G0, 32 px (2); G1 (2); ");
}

/// No two of its numbers are alike.
ComparedNetwork network(const std::string& name) {
  ComparedNetwork n;
  n.name = name;
  n.data = "set";
  n.split = "val";
  n.classes = {"a", "b"};
  n.input = 32;
  n.n = 1000;
  n.params_total = 2'500'000;
  n.macs = 7'100'000;
  n.flops_eq13 = 14'300'000;
  n.accuracy = 0.8;
  n.accuracy_interval = {0.771, 0.823};
  n.macro_precision = 0.61;
  n.macro_recall = 0.52;
  n.weighted_f1 = 0.43;
  return n;
}

TEST(Comparison, EveryNumberStandsInItsColumn) {
  ComparedNetwork timed = network("a|b");
  timed.latency_ms = 1.25;
  timed.images_per_second = 3456;
  EXPECT_EQ(
      comparison_csv({network("x, y"), timed}),
      "model,input,n,accuracy,accuracy_low,accuracy_high,macro_precision,macro_recall,weighted_f1,"
      "params_total,macs,flops_eq13,latency_ms,images_per_second\n"
      "\"x, y\",32,1000,0.800000,0.771000,0.823000,0.610000,0.520000,0.430000,2500000,7100000,14300000,,\n"
      "a|b,32,1000,0.800000,0.771000,0.823000,0.610000,0.520000,0.430000,2500000,7100000,14300000,1.2500,"
      "3456.0\n");
  const std::string table = comparison_markdown({network("x"), timed}),
                    numbers = " | 32 | 80.0 | 77.1 to 82.3 | 61.0 | 52.0 | 43.0 | 2.50 M | 7.1 M | 14.3 M | ";
  EXPECT_NE(table.find("\n| x" + numbers + " |  |\n| a\\|b" + numbers + "1.25 | 3456 |\n"), std::string::npos)
      << table;
}

TEST(Comparison, ChartsSetAccuracyAgainstTheirCost) {
  for (const auto& [chart, cost] :
       {std::pair{macs_chart({network("x")}), 7.1e6}, {parameters_chart({network("x")}), 2.5e6}}) {
    const Series& s = chart.series.at(0);
    EXPECT_EQ(s.x, std::vector<double>{cost});
    EXPECT_EQ(s.y, std::vector<double>{0.8});
    EXPECT_EQ(s.low, std::vector<double>{0.771});
    EXPECT_EQ(s.high, std::vector<double>{0.823});
  }
}

TEST(Comparison, WhateverTellsImagesApartIsTold) {
  auto differs = [](auto&& change) {
    ComparedNetwork other = network("y");
    change(other);
    return !different_data({network("x"), other}).empty();
  };
  EXPECT_FALSE(differs([](ComparedNetwork& n) { n.data = "./set/"; }));
  EXPECT_FALSE(differs([](ComparedNetwork& n) { n.data = "set/labels.csv"; }));
  EXPECT_TRUE(differs([](ComparedNetwork& n) { n.data = "other"; }));
  EXPECT_TRUE(differs([](ComparedNetwork& n) { n.n = 999; }));
  EXPECT_TRUE(differs([](ComparedNetwork& n) { n.split = "test"; }));
  EXPECT_TRUE(differs([](ComparedNetwork& n) { n.classes = {"b", "a"}; }));
}

// Latency is that of one image, the speed the highest of all batches; older files name the weights "model".
TEST_F(Compare, ReadsTimesOfSeveralBatches) {
  auto j = nlohmann::json::parse(test::read_text(evaluated("a", dir / "set", {"--speed"}) + "/metrics.json"));
  j["speed"] = nlohmann::json::array();
  for (const auto& [batch, ms, speed] : {std::tuple{8, 4., 2000.}, {1, 2., 500.}, {64, 50., 1280.}})
    j["speed"].push_back({{"batch", batch}, {"median_ms", ms}, {"images_per_second", speed}});
  j.erase("weights");
  j["model"] = dir / "run/best.safetensors";
  test::write_text(dir / "a/metrics.json", j.dump());
  const ComparedNetwork n = read_evaluation(dir / "a");
  EXPECT_EQ(n.latency_ms, 2.);
  EXPECT_EQ(n.images_per_second, 2000.);
  ASSERT_TRUE(n.record);
  EXPECT_EQ(n.record->epoch.size(), 3u);
  EXPECT_EQ(n.accuracy_interval.high, j["accuracy_ci95"][1].get<double>());
}

}  // namespace
}  // namespace gm
