// What the tests of gm_search run call it with.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "tests/tools_test_util.h"

namespace gm::test {

/// Three samplers, four iterations each: a search of about a second.
inline std::string search_config() {
  return R"(model:
  name: tiny
  classes: 5
  batch_norm: {momentum: 0.9}
  stem: {kernel: 3, stride: 2, filters: 8}
  stages:
    - {expand: 1, kernel: 3, stride: 1, filters: 8, layers: 1}
    - {expand: 3, kernel: 3, stride: 2, filters: 16, layers: 2}
  head: {filters: 16}
input: {size: 24}
data: {val_fraction: 0.2}
augment: {kind: gz}
optimizer: {name: adamw, lr: 3.0e-3}
schedule: {name: cosine}
train: {epochs: 2, batch: 8}
search:
  samplers: [enas, random, halving]
  iterations: 4
  train_steps: 3
  children: 3
  score_batches: 2
  target_macs: 3.0e5
  finalists: 1
  space: {layers: [1, 2]}
  controller: {hidden: 16, lr: 0.01}
)";
}

/// A folder with a configuration and 120 synthetic galaxies of five classes.
class Search : public testing::Test {
 protected:
  Search() {
    write_text(config, search_config());
    expect_success(run("gm_data", {"synth", "--classes", "gz5", "--count", "120", "--size", "32", "--format",
                                   "png", "--quiet", "--out", data}));
  }
  std::vector<std::string> arguments(const std::string& out,
                                     const std::vector<std::string>& more = {}) const {
    std::vector<std::string> a{"run",      config, "--data",    data, "--out",  dir / out,
                               "--device", "cpu",  "--threads", "2",  "--quiet"};
    a.insert(a.end(), more.begin(), more.end());
    return a;
  }
  void refuse(const std::vector<std::string>& more, const std::vector<std::string>& parts) {
    expect_failure(run("gm_search", arguments("refused", more)), 1, parts);
    EXPECT_FALSE(std::filesystem::exists(dir / "refused")) << "nothing is written before the checks";
  }
  std::string journal(const std::string& out) const { return dir / (out + "/journal.jsonl"); }

  TempDir dir;
  std::string config = dir / "search.yaml", data = dir / "set";
};

}  // namespace gm::test
