// gm_bench and gm_check from the outside: figures that belong together, differences where there are some.
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/tools_test_util.h"

namespace gm {
namespace {

using test::expect_failure;
using test::expect_success;
using test::Ran;
using test::run;
using test::write_text;

std::vector<nlohmann::json> json_lines(const std::string& text) {
  std::vector<nlohmann::json> rows;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);)
    if (!line.empty() && line[0] == '{') rows.push_back(nlohmann::json::parse(line));
  return rows;
}

struct Tools : testing::Test {
  Tools() { write_text(config, test::tiny_config()); }
  test::TempDir dir;
  std::string config = dir / "tiny.yaml";
};

TEST_F(Tools, OpsOfANetworkAgainstTheCeilings) {
  const Ran r =
      run("gm_bench", {"--ops", config, "--batch", "4", "--seconds", "0.001", "--json", "--device", "cpu"});
  expect_success(r);
  const auto rows = json_lines(r.out);
  ASSERT_GT(rows.size(), 4u);
  const double copy = rows[0].at("copy_gb_s");
  EXPECT_GT(copy, 0);
  bool backward = false;
  for (size_t i = 1; i < rows.size(); ++i) {
    const auto& row = rows[i];
    EXPECT_NEAR(row.at("share_of_copy"), double(row.at("gb_s")) / copy, 1e-6) << row;
    if (row.at("memory_bound")) EXPECT_NEAR(row.at("share_of_roof"), row.at("share_of_copy"), 1e-6) << row;
    EXPECT_GE(row.at("count"), 1);
    EXPECT_EQ(row.at("batch"), 4);
    EXPECT_EQ(row.at("mode"), "train");
    backward |= row.at("pass") == "backward";
  }
  EXPECT_TRUE(backward);
}

TEST_F(Tools, ListedCasesSayWhatBoundsThem) {
  const Ran r = run("gm_bench", {"--op", "linear", "--seconds", "0.001", "--json", "--device", "cpu"});
  expect_success(r);
  const auto rows = json_lines(r.out);
  ASSERT_GT(rows.size(), 1u);
  for (size_t i = 1; i < rows.size(); ++i) {
    const auto& row = rows[i];
    const bool by_memory = std::abs(double(row.at("share_of_roof")) - double(row.at("share_of_copy"))) <
                           1e-6 * double(row.at("share_of_roof"));
    EXPECT_EQ(row.at("memory_bound"), by_memory) << row;
  }
}

TEST_F(Tools, ImagesFromTheHostAgainstUploads) {
  const Ran r = run("gm_bench", {"--model", config, "--from-host", "40", "--batch", "4", "--seconds", "0.001",
                                 "--json", "--device", "cpu"});
  expect_success(r);
  const auto rows = json_lines(r.out);
  ASSERT_EQ(rows.size(), 1u);
  const auto& row = rows[0];
  EXPECT_EQ(row.at("image"), 40);
  EXPECT_EQ(row.at("mode"), "from_host");
  EXPECT_GT(row.at("images_per_second"), 0);
  EXPECT_NEAR(row.at("gb_s"), double(row.at("images_per_second")) * 40 * 40 * 3 / 1e9, 1e-9) << row;
  EXPECT_NEAR(row.at("share_of_upload"), double(row.at("gb_s")) / double(row.at("upload_gb_s")), 1e-6) << row;
  expect_failure(run("gm_bench", {"--from-host", "40"}), 2, {"--model"});
}

TEST_F(Tools, RooflineAddsUpItsBlocks) {
  const Ran r = run("gm_bench", {"--roofline", config, "--batch", "4", "--seconds", "0.001", "--device",
                                 "cpu", "--precision", "tf32"});
  expect_success(r);
  EXPECT_NE(r.out.find(" px, batch 4, tf32, training\n"), std::string::npos) << r.out;
  double sum = 0, all = 0;
  std::istringstream in(r.out);
  for (std::string line; std::getline(in, line);) {
    char name[64];
    double gb;
    if (std::sscanf(line.c_str(), "| %63[^|] | %lf |", name, &gb) != 2) continue;
    (std::string(name).rfind("all ops", 0) == 0 ? all : sum) += gb;
  }
  EXPECT_GT(all, 0);
  EXPECT_NEAR(sum, all, 0.02 * all + 0.005);  // rounded to a thousandth of a GB in every row
}

TEST_F(Tools, CheckFindsTheProcessorAndTheReferenceAlike) {
  const Ran r = run("gm_check", {config, "--device", "cpu", "--against", "ref", "--batch", "2", "--json"});
  expect_success(r);
  EXPECT_GT(json_lines(r.out).size(), 10u);
}

TEST_F(Tools, CheckFailsBeyondItsTolerance) {
  const Ran r = run("gm_check", {config, "--device", "cpu", "--against", "ref", "--batch", "2", "--mode",
                                 "infer", "--tolerance", "1e-12", "--quiet"});
  expect_failure(r, 1, {"differs by", "more than 1e-12"});
}

}  // namespace
}  // namespace gm
