// Progressive resizing: gm_train with stages is the same as single runs, each started from the one before.
#include "tests/tools_test_util.h"

namespace gm {
namespace {

namespace fs = std::filesystem;
using test::expect_failure;
using test::expect_same_tensors;
using test::expect_success;

TEST(Stages, GrowTheImagesAndResume) {
  test::TempDir dir;
  const std::string config = dir / "tiny.yaml", data = dir / "set";
  test::write_text(config, test::tiny_config());
  expect_success(test::run("gm_data", {"synth", "--classes", "gz5", "--count", "200", "--size", "40",
                                       "--format", "png", "--quiet", "--out", data}));
  auto arguments = [&](const std::string& out, const std::vector<std::string>& more) {
    return test::train_arguments(config, data, dir / out, more);
  };
  const std::vector<std::string> stages{"--stage", "input.size=24; train.epochs=1; model.dropout=0.1",
                                        "--stage", "input.size=32"};
  expect_success(test::run("gm_train", arguments("one", {"--set", "input.size=24", "--set", "train.epochs=1",
                                                         "--set", "model.dropout=0.1"})));
  expect_success(test::run("gm_train", arguments("two", {"--init", dir / "one/last.safetensors"})));
  expect_success(test::run("gm_train", arguments("staged", stages)));
  expect_same_tensors(dir / "staged/stage1/last.safetensors", dir / "one/last.safetensors");
  expect_same_tensors(dir / "staged/stage2/last.safetensors", dir / "two/last.safetensors");
  EXPECT_EQ(test::read_text(dir / "staged/stage1/split.csv"),
            test::read_text(dir / "staged/stage2/split.csv"));
  EXPECT_NE(test::read_text(dir / "staged/stage2/log.txt").find("tiny at 32 px"), std::string::npos);

  // Ended in its second stage.
  const std::string last = dir / "cut/stage2/last.safetensors";
  {
    test::Process p("gm_train", arguments("cut", stages), {});
    while (p.running() && !fs::exists(last)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ASSERT_TRUE(test::wait_for_mid_epoch(p, last)) << p.err();
    p.send(SIGTERM);
    EXPECT_EQ(p.wait(), 0);
  }
  std::vector<std::string> again = stages;
  again.push_back("--resume");
  expect_success(test::run("gm_train", arguments("cut", again)));
  expect_same_tensors(last, dir / "two/last.safetensors");

  // What has ended stays as it is, and nothing that has begun is left out.
  const std::string ended = test::read_text(dir / "cut/stage1/last.safetensors");
  expect_failure(test::run("gm_train", arguments("cut", {"--stage", "input.size=32", "--resume"})), 1,
                 {"stage2 has begun"});
  std::vector<std::string> longer = again;
  longer[1] = "input.size=24; train.epochs=3; model.dropout=0.1";
  expect_failure(test::run("gm_train", arguments("cut", longer)), 1, {"stage1 has ended", "train.epochs"});
  longer[1] = "input.size=28; train.epochs=1; model.dropout=0.1";
  expect_failure(test::run("gm_train", arguments("cut", longer)), 1, {"stage1/config.yaml", "input.size"});
  EXPECT_EQ(test::read_text(dir / "cut/stage1/last.safetensors"), ended);

  expect_failure(test::run("gm_train", arguments("cut", stages)), 1, {"stage1", "--resume"});
  for (const char* bad : {"data.val_fraction=0.5", "data={val_fraction: 0.5}", "train.seed=3",
                          "train={seed: 3}", "input.sise=24", "train.batch=500"}) {
    expect_failure(test::run("gm_train", arguments("bad", {"--stage", "input.size=24", "--stage", bad})), 1,
                   {});
    EXPECT_FALSE(fs::exists(dir / "bad")) << bad;
  }
}

}  // namespace
}  // namespace gm
