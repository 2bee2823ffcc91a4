// Networks trained by processes of their own: what each process is told, what is taken for a result. Most of
// the trainers are scripts.
#include "tools/search/candidates.h"

#include <nlohmann/json.hpp>

#include "tests/tools_test_util.h"

namespace gm {
namespace {

namespace fs = std::filesystem;

class Candidates : public testing::Test {
 protected:
  Candidates() {
    fs::create_directories(dir / "set/images");
    std::string labels = "id_str,label\n";
    for (int i = 0; i < 30; ++i) {
      const std::string id = "g" + std::to_string(i);
      write_image(dir / ("set/images/" + id + ".png"), test::gradient(32, 32, i * 8));
      labels += id + "," + std::to_string(i % 5) + "\n";
    }
    test::write_text(dir / "set/labels.csv", labels);
    options.folder = dir / "out";
    options.device = "cpu";
    options.quiet = true;
  }

  Candidate candidate(const std::string& name, const std::vector<std::string>& sets = {}) const {
    YAML::Node config = with_sets(sets);
    config["data"]["path"] = dir / "set";
    return {name, config};
  }
  YAML::Node with_sets(const std::vector<std::string>& sets) const {
    test::write_text(dir / "tiny.yaml", test::tiny_config());
    return load_config(dir / "tiny.yaml", sets);
  }

  /// The program that takes gm_train's place; `$3` is the folder of the run.
  void train_with(const std::string& script) {
    options.trainer = dir / "trainer";
    test::write_text(options.trainer, "#!/bin/sh\n" + script);
    fs::permissions(options.trainer, fs::perms::owner_all);
  }
  /// Writes what gm_train leaves of `epochs` epochs.
  static std::string run_of(int epochs) {
    std::string lines = "echo 'epoch,val_loss,val_accuracy' > \"$3/metrics.csv\"\n";
    for (int e = 1; e <= epochs; ++e)
      lines += "echo '" + std::to_string(e) + ",0.5,0.25' >> \"$3/metrics.csv\"\n";
    return lines + "printf 'id_str,split\\na,train\\nb,val\\nc,val\\nd,test\\n' > \"$3/split.csv\"\n";
  }
  std::string arguments(const std::string& name) const {
    return test::read_text(dir / ("out/" + name + "/arguments.txt"));
  }
  auto train(const std::vector<Candidate>& candidates) const {
    const std::atomic<bool> never = false;
    return train_candidates(candidates, options, never);
  }

  test::TempDir dir;
  CandidateOptions options;
};

const std::string kNoteArguments = "echo \"$*\" > \"$3/arguments.txt\"\n";

TEST_F(Candidates, AResultIsWhatTheLastEpochLeft) {
  train_with(run_of(2));
  const auto result = train({candidate("a")})[0];
  ASSERT_TRUE(result);
  EXPECT_EQ(result->epochs, 2);
  EXPECT_EQ(result->val_accuracy, 0.25);
  EXPECT_EQ(result->val_loss, 0.5);
  EXPECT_EQ(result->val_images, 2) << "those of the validation alone";
  const auto model = test::run("gm_model", {dir / "out/a/candidate.yaml", "--json"});
  EXPECT_EQ(result->params, nlohmann::json::parse(model.out)["params_trainable"]);
}

TEST_F(Candidates, JobsShareTheThreads) {
  train_with(kNoteArguments + run_of(2));
  options.threads = 6;
  options.jobs = 2;
  train({candidate("a"), candidate("b", {"data.workers=1"})});
  EXPECT_NE(arguments("a").find("--threads 3 --set data.workers=3"), std::string::npos) << arguments("a");
  EXPECT_NE(arguments("b").find("--threads 3"), std::string::npos) << arguments("b");
  EXPECT_EQ(arguments("b").find("data.workers"), std::string::npos) << arguments("b");
}

TEST_F(Candidates, SecondsOfEarlierProcessesCount) {
  fs::create_directories(dir / "out/a");
  test::write_text(dir / "out/a/seconds.txt", "100\n");
  for (const std::string& unfinished : {std::string("exit 1\n"), run_of(1)}) {
    train_with("sleep 0.2\n" + unfinished);
    EXPECT_THROW(train({candidate("a")}), Error);
  }
  train_with(run_of(2));
  const auto result = train({candidate("a")})[0];
  ASSERT_TRUE(result);
  EXPECT_GE(result->seconds, 100.35) << "of one that failed and of one that was stopped";
  EXPECT_LT(result->seconds, 130);
}

TEST_F(Candidates, ARunThatStoppedEarlyHasAResult) {
  const auto result =
      train({candidate("a", {"train.epochs=200", "train.patience=1", "optimizer.lr=0.03"})})[0];
  ASSERT_TRUE(result);
  EXPECT_LT(result->epochs, 200);
}

TEST_F(Candidates, APatientRunThatASignalEndedHasNone) {
  train_with("'" GM_BINARY_DIR
             "/bin/gm_train' \"$@\" &\n"
             "while [ ! -e \"$3/metrics.csv\" ]; do sleep 0.01; done\nkill $!\nwait $!\n");
  EXPECT_ERROR(train({candidate("a", {"train.epochs=100000", "train.patience=99999"})}),
               "1 of 1 networks failed");
  EXPECT_TRUE(fs::exists(dir / "out/a/last.safetensors"));
  EXPECT_FALSE(fs::exists(dir / "out/a/result.json"));
}

}  // namespace
}  // namespace gm
