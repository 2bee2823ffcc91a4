// Runs that are interrupted at any moment go on bit for bit, and refuse what would not.
#include <nlohmann/json.hpp>

#include "data/csv.h"
#include "tests/cli_fixture.h"
#include "tests/training_runs.h"

namespace gm {
namespace {

namespace fs = std::filesystem;
using test::Cli;
using test::comparable_metrics;
using test::expect_failure;
using test::expect_same_tensors;
using test::expect_success;
using test::Process;
using test::read_text;
using test::Train;

TEST_F(Train, TerminatedOrKilledRunsResumeBitForBit) {
  train("whole");
  for (const int signal : {SIGTERM, SIGKILL}) {
    const std::string name = signal == SIGTERM ? "terminated" : "killed";
    SCOPED_TRACE(name);
    {
      Process p("gm_train", arguments(name), {});
      ASSERT_TRUE(test::wait_for_mid_epoch(p, last(name))) << p.err();
      expect_failure(test::run("gm_train", arguments(name, {"--resume"})), 1,
                     {dir / name, "another process"});
      p.send(signal);
      EXPECT_EQ(p.wait(), signal == SIGTERM ? 0 : -SIGKILL);
      if (signal == SIGTERM) {
        EXPECT_NE(p.out().find("Resume with: gm_train " + (dir / name) + "/config.yaml --out " +
                               (dir / name) + " --resume"),
                  std::string::npos)
            << p.out();
      }
    }
    EXPECT_LT(std::stoi(read_safetensors(last(name)).metadata.at("step")), 44)
        << "stopped too late to mean anything";
    // What a kill in the midst of a save leaves, and what another program may be writing.
    const std::string half = dir / (name + "/.last.tmp0123456789abcdef.safetensors"),
                      others = dir / (name + "/.predictions.tmp0123456789abcdef.csv");
    test::write_text(half, "half");
    test::write_text(others, "others");
    // The configuration it began with, which names no data, or that of its folder.
    const std::string with = signal == SIGTERM ? config : dir / (name + "/config.yaml");
    expect_success(
        test::run("gm_train", {with, "--out", dir / name, "--resume", "--device", "cpu", "--threads", "2"}));
    EXPECT_FALSE(fs::exists(half));
    EXPECT_TRUE(fs::exists(others));
    expect_same_tensors(last("whole"), last(name));
    expect_same_tensors(dir / "whole/best.safetensors", dir / (name + "/best.safetensors"));
    EXPECT_EQ(comparable_metrics(dir / "whole/metrics.csv"),
              comparable_metrics(dir / (name + "/metrics.csv")));
  }
}

// Reading and splitting a million rows takes many seconds.
TEST_F(Train, BeforeItsFirstFileARunIsInterruptedAtOnce) {
  train("a", {"--epochs", "1"});
  test::AwaitedFile split(dir / "a/split.csv");
  Process p("gm_train", arguments("a", {"--resume", "--epochs", "2"}), {});
  ASSERT_TRUE(split.reached_by(p)) << p.err();
  p.send(SIGTERM);  // shells let what they start in the background ignore SIGINT
  for (int k = 0; k < 1000 && p.running(); ++k) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  split.close();
  EXPECT_EQ(p.wait(), -SIGTERM) << p.err();
}

TEST_F(Train, AveragedWeightsAreWhatIsEvaluatedAndResumeBitForBit) {
  const std::vector<std::string> averaged{"--set", "optimizer.average=0.9", "--set",
                                          "optimizer.clip_norm=0.5"};
  train("whole", averaged);
  {
    Process p("gm_train", arguments("killed", averaged), {});
    ASSERT_TRUE(test::wait_for_mid_epoch(p, last("killed"))) << p.err();
    p.send(SIGKILL);
    EXPECT_EQ(p.wait(), -SIGKILL);
  }
  expect_success(test::run("gm_train", {dir / "killed/config.yaml", "--out", dir / "killed", "--resume",
                                        "--device", "cpu", "--threads", "2"}));
  expect_same_tensors(last("whole"), last("killed"));
  expect_same_tensors(dir / "whole/best.safetensors", dir / "killed/best.safetensors");

  // The same steps without an average end in the parameters that the average follows.
  train("plain", {"--set", "optimizer.clip_norm=0.5"});
  const TensorFile whole = read_safetensors(last("whole")), plain = read_safetensors(last("plain"));
  EXPECT_NE(whole.at("top_conv/kernel").bytes, plain.at("top_conv/kernel").bytes);
  const std::vector<float> raw = whole.at("optimizer/parameters").floats(),
                           kernel = plain.at("top_conv/kernel").floats();
  EXPECT_NE(std::search(raw.begin(), raw.end(), kernel.begin(), kernel.end()), raw.end());
  // Validation ran with the average: gm_eval on the stored weights finds the same accuracy and the same loss.
  expect_success(test::run("gm_eval", {"--model", last("whole"), "--data", data, "--split", "val", "--out",
                                       dir / "eval", "--device", "cpu", "--quiet"}));
  const auto found = nlohmann::json::parse(test::read_text(dir / "eval/metrics.json"));
  const CsvTable metrics(dir / "whole/metrics.csv");
  auto validated = [&](const char* column) {
    return std::stod(metrics.cell(metrics.rows() - 1, metrics.column(column)));
  };
  EXPECT_NEAR(found["accuracy"].get<double>(), validated("val_accuracy"), 1e-6);
  EXPECT_NEAR(found["calibration"]["nll"].get<double>(), validated("val_loss"), 1e-5);
  train("free", {});
  EXPECT_NE(read_safetensors(last("free")).at("top_conv/kernel").bytes, plain.at("top_conv/kernel").bytes);
}

// The optimizer goes on from its own parameters when the average ends, and the average begins with them.
TEST_F(Train, AnAverageMayEndOrBeginOnResume) {
  const auto resumed = [&](const std::string& name, const std::string& average) {
    expect_success(test::run(
        "gm_train", {dir / (name + "/config.yaml"), "--out", dir / name, "--resume", "--device", "cpu",
                     "--threads", "2", "--set", "train.epochs=3", "--set", "optimizer.average=" + average}));
    return read_safetensors(last(name));
  };
  const std::vector<std::string> constant{"--set", "schedule={name: constant}", "--set", "train.epochs=2"};
  auto averaged = constant;
  averaged.insert(averaged.end(), {"--set", "optimizer.average=0.9"});
  train("plain", constant);
  train("ends", averaged);
  train("begins", constant);
  const TensorFile plain = resumed("plain", "0"), ends = resumed("ends", "0"),
                   begins = resumed("begins", "0.9");
  EXPECT_EQ(ends.at("top_conv/kernel").bytes, plain.at("top_conv/kernel").bytes);
  EXPECT_NE(begins.at("top_conv/kernel").bytes, plain.at("top_conv/kernel").bytes);
  const std::vector<float> raw = begins.at("optimizer/parameters").floats(),
                           kernel = plain.at("top_conv/kernel").floats();
  EXPECT_NE(std::search(raw.begin(), raw.end(), kernel.begin(), kernel.end()), raw.end());
}

// Without batch statistics and dropout, two batches of 8 an update are one of 16: the same images in the same
// order, the same schedule. Killed and resumed it is still the same run.
TEST_F(Train, TwoBatchesAnUpdateAreOneOfTwiceTheSize) {
  const std::vector<std::string> plain{"--set", "model.dropout=0",      "--set", "model.stochastic_depth=0",
                                       "--set", "train.freeze_bn=true", "--set", "optimizer.clip_norm=0.5"};
  auto with = [&](std::vector<std::string> more) {
    more.insert(more.end(), plain.begin(), plain.end());
    return more;
  };
  train("one", with({"--set", "train.batch=16"}));
  const std::vector<std::string> two = with({"--set", "optimizer.accumulate=2"});
  train("two", two);
  const TensorFile one = read_safetensors(last("one")), sum = read_safetensors(last("two"));
  const TensorFile start = [&] {
    train("start", with({"--set", "optimizer.lr=0"}));
    return read_safetensors(last("start"));
  }();
  for (const auto& [name, tensor] : one.tensors) {
    if (name.starts_with("optimizer/") || tensor.bytes == start.at(name).bytes) continue;
    const std::vector<float> a = tensor.floats(), b = sum.at(name).floats(), c = start.at(name).floats();
    double error = 0, moved = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      error += std::pow(double(a[i]) - b[i], 2);
      moved += std::pow(double(a[i]) - c[i], 2);
    }
    EXPECT_LT(std::sqrt(error), 0.01 * std::sqrt(moved)) << name;
  }
  const CsvTable a(dir / "one/metrics.csv"), b(dir / "two/metrics.csv");
  for (const char* column : {"train_loss", "val_loss", "lr"})
    EXPECT_NEAR(std::stod(a.cell(1, a.column(column))), std::stod(b.cell(1, b.column(column))), 1e-4)
        << column;

  Process p("gm_train", arguments("killed", two), {});
  ASSERT_TRUE(test::wait_for_mid_epoch(p, last("killed"))) << p.err();
  p.send(SIGKILL);
  p.wait();
  expect_success(test::run("gm_train", {dir / "killed/config.yaml", "--out", dir / "killed", "--resume",
                                        "--device", "cpu", "--threads", "2"}));
  expect_same_tensors(last("two"), last("killed"));
  expect_failure(test::run("gm_train", arguments("x", {"--set", "optimizer.accumulate=23"})), 1,
                 {"optimizer.accumulate 23", "180 images"});
}

TEST_F(Train, RecomputationChangesNoBitAndMayBeSwitchedAtAResume) {
  train("whole");
  train("again", {"--set", "train.recompute=true"});
  expect_same_tensors(last("whole"), last("again"));
  EXPECT_EQ(comparable_metrics(dir / "whole/metrics.csv"), comparable_metrics(dir / "again/metrics.csv"));
  EXPECT_NE(test::read_text(dir / "whole/log.txt").find(" with train.recompute"), std::string::npos);
  EXPECT_NE(test::read_text(dir / "again/log.txt").find(" without train.recompute"), std::string::npos);

  Process p("gm_train", arguments("switched"), {});
  ASSERT_TRUE(test::wait_for_mid_epoch(p, last("switched"))) << p.err();
  p.send(SIGTERM);
  EXPECT_EQ(p.wait(), 0);
  train("switched", {"--resume", "--set", "train.recompute=true"});
  expect_same_tensors(last("whole"), last("switched"));
}

// The moments of layers that are frozen at a resume must not let them coast on.
TEST_F(Train, LayersFrozenAtAResumeStopAtOnce) {
  train("a", {"--epochs", "1"});
  const TensorFile before = read_safetensors(last("a"));
  train("a", {"--epochs", "2", "--resume", "--set", "train.freeze=[top]"});
  EXPECT_EQ(read_safetensors(last("a")).at("top_conv/kernel").bytes, before.at("top_conv/kernel").bytes);
  // What a resumed run changed is in its folder: the command that the log gives goes on with it.
  EXPECT_NE(test::read_text(dir / "a/config.yaml").find("[top]"), std::string::npos);
  EXPECT_NE(test::read_text(dir / "a/log.txt").find("changed: train.epochs from 1 to 2"), std::string::npos);
}

TEST_F(Train, ResumeRefusesWhatIsNotItsCheckpoint) {
  train("a", {"--epochs", "1"});
  const std::string file = last("a"), bytes = test::read_text(file);
  auto fails = [&](const std::vector<std::string>& more, const std::vector<std::string>& parts) {
    std::vector<std::string> args = arguments("a", {"--resume"});
    args.insert(args.end(), more.begin(), more.end());
    const std::string before = test::read_text(file);
    expect_failure(test::run("gm_train", args), 1, parts);
    EXPECT_EQ(test::read_text(file), before);
  };
  const std::string catalog = data + "/labels.csv", labels = test::read_text(catalog);
  test::name_labels(catalog);
  fails({}, {"split.csv", "of class", "the data have changed"});
  test::write_text(catalog, labels);
  const std::string begun = dir / "a/config.yaml", text = test::read_text(begun);
  for (const char* set :
       {"model.head.filters=24", "model.se=0", "train.seed=5", "train.batch=4", "input.size=64",
        "data.val_fraction=0.5", "optimizer.name=sgd", "optimizer.accumulate=2", "augment.kind=none"}) {
    const std::string key = std::string(set).substr(0, std::string(set).find('='));
    fails({"--set", set}, {begun + ": " + key + " is"});
  }
  const std::string best = dir / "a/best.safetensors";
  fs::rename(best, best + ".elsewhere");
  fails({"--epochs", "2"}, {best, "epoch 1"});
  fs::rename(best + ".elsewhere", best);
  EXPECT_EQ(test::read_text(begun), text);
  fs::remove(begun);
  fails({"--set", "model.head.filters=24"}, {file, "shape"});
  fails({"--seed", "5"}, {file, "seed"});
  test::write_text(file, bytes.substr(0, bytes.size() / 2));
  fails({}, {file, "truncated"});
  fs::copy_file(dir / "a/best.safetensors", file, fs::copy_options::overwrite_existing);
  fails({}, {file, "optimizer/moment1"});
  fs::remove(file);
  expect_failure(test::run("gm_train", arguments("a", {"--resume"})), 1, {"no last.safetensors"});
  expect_failure(test::run("gm_train", {config, "--data", data, "--resume"}), 2, {"--out"});
}

// What a run at its end is resumed with cannot act: config.yaml stays what the weights were trained by.
TEST_F(Train, ARunAtItsEndKeepsItsConfiguration) {
  train("a");
  const std::string begun = test::read_text(dir / "a/config.yaml");
  for (const std::vector<std::string>& more : {std::vector<std::string>{"--set", "optimizer.lr=0.5"},
                                               {"--epochs", "1"},
                                               {"--set", "train.freeze=[stem]"}}) {
    std::vector<std::string> args = arguments("a", {"--resume"});
    args.insert(args.end(), more.begin(), more.end());
    expect_failure(test::run("gm_train", args), 1, {dir / "a", "has ended after 2 epochs", "changed: "});
    EXPECT_EQ(test::read_text(dir / "a/config.yaml"), begun);
  }
  train("a", {"--resume", "--set", "data.workers=1"});  // acts on no step
  ASSERT_EQ(begun.find("seed:"), std::string::npos);
  const std::string noted = test::read_text(dir / "a/config.yaml") + "# a note of the user's\n";
  test::write_text(dir / "a/config.yaml", noted);
  train("a", {"--resume", "--seed", "0", "--batch", "8"});  // as it was begun
  EXPECT_EQ(test::read_text(dir / "a/config.yaml"), noted);
  train("a", {"--resume", "--epochs", "3", "--set", "optimizer.lr=0.5"});
  EXPECT_NE(test::read_text(dir / "a/config.yaml"), begun);
  EXPECT_EQ(CsvTable(dir / "a/metrics.csv").rows(), 3);
}

// As a run that was killed between the end of its last epoch and the return to its best weights.
TEST_F(Cli, AnEarlyStopIsFinishedByResume) {
  expect_success(train({"--data", data, "--epochs", "40", "--batch", "4", "--set", "train.patience=1",
                        "--set", "optimizer.lr=0.03"}));
  ASSERT_NE(read_text(out + "/log.txt").find("stopped early"), std::string::npos);
  auto weights = [&](const char* file) { return read_model(out + "/" + file).tensors.tensors; };
  auto same = [&] {
    for (const auto& [name, tensor] : weights("best.safetensors"))
      if (weights("last.safetensors").at(name).bytes != tensor.bytes) return false;
    return true;
  };
  EXPECT_FALSE(same());
  expect_success(train({"--data", data, "--epochs", "40", "--batch", "4", "--set", "train.patience=1",
                        "--set", "optimizer.lr=0.03", "--resume", "--set", "train.restore_best=true"}));
  EXPECT_TRUE(same());
}

}  // namespace
}  // namespace gm
