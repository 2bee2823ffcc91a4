// What the tests of the command line on bad input call the tools with.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "data/image.h"
#include "tests/tools_test_util.h"

namespace gm::test {

/// A folder with a tiny model, a configuration and a catalog of 20 labelled images, four a class.
class Cli : public testing::Test {
 protected:
  Cli() {
    write_tiny_model(model);
    write_text(config, tiny_config());
    std::filesystem::create_directories(dir / "set/images");
    std::string csv = "id_str,file_loc,label\n";
    for (int i = 0; i < 20; ++i) {
      const std::string name = "images/g" + std::to_string(i) + ".png";
      write_image(dir / ("set/" + name), gradient(32, 32, i * 10));
      csv += "g" + std::to_string(i) + "," + name + "," + std::to_string(i % 5) + "\n";
    }
    write_text(dir / "set/labels.csv", csv);
    write_image(good, gradient(32, 32));
  }
  Ran infer(std::vector<std::string> args, const Process::Options& options = {}) {
    args.insert(args.begin(), {"--model", model, "--quiet", "--device", "cpu", "--threads", "1"});
    return run("gm_infer", args, options);
  }
  Ran train(std::vector<std::string> args, const Process::Options& options = {}) {
    args.insert(args.begin(), {config, "--out", out, "--quiet"});
    return run("gm_train", args, options);
  }
  bool partial_file() {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(dir.path()))
      if (entry.path().filename().string().find(".tmp") != std::string::npos) return true;
    return false;
  }
  /// Exit status of a tool that gets the signal once it has begun to write.
  int signalled_while_writing(test::Process& p, int signal) {
    while (p.running() && !partial_file()) ::usleep(1000);
    p.send(signal);
    return p.wait();
  }
  void expect_nothing_written() {
    EXPECT_FALSE(std::filesystem::exists(out));
    EXPECT_FALSE(partial_file());
  }

  TempDir dir;
  std::string model = dir / "model.safetensors", config = dir / "tiny.yaml", good = dir / "good.png",
              data = dir / "set", out = dir / "out";
};

}  // namespace gm::test
