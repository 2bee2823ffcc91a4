// Runs of gm_train on a small synthetic set, for the tests of training, of resuming and of fine tuning.
#pragma once
#include <string>
#include <vector>

#include "tests/tools_test_util.h"

namespace gm::test {

/// A synthetic set of 200 images at 40 px; 180 for training are 22 steps an epoch at batch 8.
class Train : public testing::Test {
 protected:
  Train() {
    write_text(config, tiny_config());
    expect_success(run("gm_data", {"synth", "--classes", "gz5", "--count", "200", "--size", "40", "--format",
                                   "png", "--quiet", "--out", data}));
  }
  std::vector<std::string> arguments(const std::string& out,
                                     const std::vector<std::string>& more = {}) const {
    return train_arguments(config, data, dir / out, more);
  }
  std::string last(const std::string& out) const { return dir / (out + "/last.safetensors"); }
  void train(const std::string& out, const std::vector<std::string>& more = {}) {
    expect_success(run("gm_train", arguments(out, more)));
  }

  TempDir dir;
  std::string config = dir / "tiny.yaml", data = dir / "set";
};

}  // namespace gm::test
