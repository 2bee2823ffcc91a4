// Training through the command line: reproducible, interruptible at any moment, resumable bit for bit; and
// inference equal to a direct evaluation of the network.
#include <nlohmann/json.hpp>
#include <sstream>

#include "data/csv.h"
#include "data/image.h"
#include "engine/session.h"
#include "tests/tools_test_util.h"

namespace gm {
namespace {

namespace fs = std::filesystem;
using test::comparable_metrics;
using test::expect_failure;
using test::expect_same_tensors;
using test::expect_success;
using test::Process;
using test::TempDir;

/// A synthetic set of 200 images at 40 px; 180 for training are 22 steps an epoch at batch 8.
class Train : public testing::Test {
 protected:
  Train() {
    test::write_text(config, test::tiny_config());
    expect_success(test::run("gm_data", {"synth", "--classes", "gz5", "--count", "200", "--size", "40",
                                         "--format", "png", "--quiet", "--out", data}));
  }
  std::vector<std::string> arguments(const std::string& out,
                                     const std::vector<std::string>& more = {}) const {
    return test::train_arguments(config, data, dir / out, more);
  }
  std::string last(const std::string& out) const { return dir / (out + "/last.safetensors"); }
  void train(const std::string& out, const std::vector<std::string>& more = {}) {
    expect_success(test::run("gm_train", arguments(out, more)));
  }

  TempDir dir;
  std::string config = dir / "tiny.yaml", data = dir / "set";
};

TEST_F(Train, WritesARunFolderAndRepeatsItself) {
  train("a");
  for (const char* file :
       {"config.yaml", "metrics.csv", "split.csv", "last.safetensors", "best.safetensors", "log.txt"})
    EXPECT_TRUE(fs::exists(dir / (std::string("a/") + file))) << file;
  const CsvTable metrics(dir / "a/metrics.csv");
  EXPECT_EQ(metrics.column_list(),
            "epoch, train_loss, train_accuracy, val_loss, val_accuracy, lr, images_per_second, data_wait");
  EXPECT_EQ(metrics.rows(), 2);
  for (const auto& entry : fs::directory_iterator(dir / "a"))
    EXPECT_EQ(entry.path().string().find(".partial"), std::string::npos) << entry.path();

  // The resolved configuration alone repeats the run; the number of loader threads does not matter.
  expect_success(test::run("gm_train", {dir / "a/config.yaml", "--out", dir / "b", "--device", "cpu",
                                        "--threads", "2", "--set", "data.workers=1", "--quiet"}));
  expect_same_tensors(last("a"), last("b"));
  EXPECT_EQ(comparable_metrics(dir / "a/metrics.csv"), comparable_metrics(dir / "b/metrics.csv"));
  EXPECT_EQ(test::read_text(dir / "a/split.csv"), test::read_text(dir / "b/split.csv"));

  train("c", {"--seed", "1"});
  EXPECT_NE(read_safetensors(last("a")).at("predictions/kernel").bytes,
            read_safetensors(last("c")).at("predictions/kernel").bytes);

  // A second run does not overwrite the first, and a finished run has nothing left to do.
  expect_failure(test::run("gm_train", arguments("a")), 1, {dir / "a", "--resume"});
  const std::string before = test::read_text(last("a"));
  train("a", {"--resume"});
  EXPECT_EQ(test::read_text(last("a")), before);
}

TEST_F(Train, ARunsConfigurationHoldsFromAnyFolder) {
  const std::string relative = fs::relative(data).string();
  ASSERT_NE(relative, data);
  expect_success(
      test::run("gm_train", test::train_arguments(config, relative, dir / "a", {"--epochs", "1"})));
  expect_success(test::run("gm_train", test::train_arguments(config, data, dir / "b", {"--epochs", "1"})));
  EXPECT_EQ(test::read_text(dir / "a/config.yaml"), test::read_text(dir / "b/config.yaml"));
}

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
    expect_success(test::run("gm_train", {dir / (name + "/config.yaml"), "--out", dir / name, "--resume",
                                          "--device", "cpu", "--threads", "2"}));
    expect_same_tensors(last("whole"), last(name));
    expect_same_tensors(dir / "whole/best.safetensors", dir / (name + "/best.safetensors"));
    EXPECT_EQ(comparable_metrics(dir / "whole/metrics.csv"),
              comparable_metrics(dir / (name + "/metrics.csv")));
  }
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

TEST_F(Train, BalancedClassWeightsComeFromTheTrainingImages) {
  const CsvTable labels(data + "/labels.csv");
  auto trained = [&](const std::string& out, int zeros, int ones, const std::string& weights) {
    std::string csv = "file_loc,label\n";
    int left[2] = {zeros, ones};
    for (int64_t r = 0; r < labels.rows(); ++r) {
      const std::string label = labels.cell(r, labels.column("label"));
      if ((label == "0" || label == "1") && left[label == "1"]-- > 0)
        csv += data + "/" + labels.cell(r, labels.column("file_loc")) + "," + label + "\n";
    }
    test::write_text(dir / "two.csv", csv);
    expect_success(test::run("gm_train", {config, "--data", dir / "two.csv", "--out", dir / out, "--device",
                                          "cpu", "--threads", "2", "--epochs", "1", "--set",
                                          "model.classes=2", "--set", "train.class_weights=" + weights}));
    return read_safetensors(last(out)).at("predictions/kernel").bytes;
  };
  EXPECT_EQ(trained("even", 20, 20, "balanced"), trained("even_plain", 20, 20, "none"));
  EXPECT_NE(trained("uneven", 30, 10, "balanced"), trained("uneven_plain", 30, 10, "none"));
  // 27 and 9 training images: 36 / (2 * 27) and 36 / (2 * 9).
  EXPECT_NE(test::read_text(dir / "uneven/log.txt").find("class weights: 0.6667 2.0000"), std::string::npos);
  expect_failure(test::run("gm_train", arguments("x", {"--set", "train.class_weights=some"})), 1,
                 {"class_weights", "balanced"});
}

TEST_F(Train, Tf32IsF32OnAProcessor) {
  train("f32", {"--epochs", "1"});
  train("tf32", {"--epochs", "1", "--set", "train.precision=tf32", "--set", "train.deterministic=false"});
  expect_same_tensors(last("f32"), last("tf32"));
  EXPECT_NE(test::read_text(dir / "tf32/log.txt").find("trainable), tf32"), std::string::npos);
  expect_failure(test::run("gm_train", arguments("x", {"--set", "train.precision=f16"})), 1,
                 {"precision", "f32, tf32, bf16"});
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

// Training that starts from a stored network, for one epoch. The configuration freezes some layers.
class FineTune : public Train {
 protected:
  FineTune() {
    std::string text = test::tiny_config();
    text.replace(text.find("train: {"), 8, "train: {freeze: [stem, block1], ");
    test::write_text(config, text);
  }
  std::vector<std::string> from_start(const std::vector<std::string>& more) const {
    std::vector<std::string> options{"--epochs", "1", "--init", model};
    options.insert(options.end(), more.begin(), more.end());
    return options;
  }
  TensorFile tuned(const std::string& out, const std::vector<std::string>& more) {
    train(out, from_start(more));
    return read_safetensors(last(out));
  }
  bool as_at_start(const TensorFile& f, const std::string& name) const {
    return f.at(name).bytes == start.at(name).bytes;
  }

  std::string model = dir / "start.safetensors";
  TensorFile start = test::write_tiny_model(model);
};

TEST_F(FineTune, FrozenLayersStayBitForBitAndOthersMove) {
  const TensorFile stages = tuned("stages", {});
  for (const auto& [name, t] : start.tensors)
    EXPECT_EQ(as_at_start(stages, name), name.starts_with("stem") || name.starts_with("block1")) << name;
  EXPECT_NE(test::read_text(dir / "stages/log.txt").find("starting from " + model), std::string::npos);
}

TEST_F(FineTune, FrozenBatchNormsStayWithEveryOptimizer) {
  for (const char* optimizer : {"adam", "sgd"}) {
    const TensorFile norms = tuned(optimizer, {"--set", "train.freeze=[]", "--set", "train.freeze_bn=true",
                                               "--set", std::string("optimizer.name=") + optimizer});
    for (const auto& [name, t] : start.tensors)
      EXPECT_EQ(as_at_start(norms, name), name.find("bn/") != std::string::npos) << name;
  }
}

TEST_F(FineTune, WeightsAndLayersThatDoNotFitAreNamed) {
  expect_failure(test::run("gm_train", arguments("x", from_start({"--set", "model.se=0.5"}))), 1,
                 {model, "se_reduce", "shape"});
  expect_failure(test::run("gm_train", arguments("x", {"--init", dir / "none"})), 1, {"none"});
  expect_failure(test::run("gm_train", arguments("x", {"--set", "train.freeze=[blok1]"})), 1,
                 {"train.freeze", "blok1"});
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

TEST_F(Train, AnotherNumberOfClassesGetsANewHead) {
  const std::string model = dir / "start.safetensors", other = dir / "ten";
  test::write_tiny_model(model);
  expect_success(test::run("gm_data", {"synth", "--classes", "galaxy10", "--count", "60", "--size", "32",
                                       "--format", "png", "--quiet", "--out", other}));
  expect_success(test::run("gm_train",
                           {config, "--data", other, "--out", dir / "a", "--set", "model.classes=10", "--set",
                            "model.padding=symmetric", "--init", model, "--epochs", "1", "--device", "cpu"}));
  const std::string log = test::read_text(dir / "a/log.txt");
  EXPECT_NE(log.find("(5 classes); the head is new: 10 classes"), std::string::npos) << log;
  EXPECT_NE(log.find("padding symmetric"), std::string::npos) << log;  // --set stays
}

// As many classes, but other ones: what the head has learnt of "round" says nothing about "edge-on".
TEST_F(Train, ClassesOfOtherNamesGetANewHead) {
  train("a", {"--epochs", "1"});
  const std::string catalog = data + "/labels.csv";
  const CsvTable table(catalog);
  std::string renamed = "id_str,file_loc,label,class\n";
  for (int64_t r = 0; r < table.rows(); ++r)
    renamed += table.cell(r, 0) + "," + table.cell(r, 1) + "," + table.cell(r, table.column("label")) +
               ",kind" + table.cell(r, table.column("label")) + "\n";
  auto begin = [&](const std::string& out) {
    train(out, {"--epochs", "1", "--init", dir / "a"});
    return test::read_text(dir / (out + "/log.txt"));
  };
  const std::string same = begin("b");
  EXPECT_EQ(same.find("the head is new"), std::string::npos) << same;
  test::write_text(catalog, renamed);
  const std::string other = begin("c");
  EXPECT_NE(other.find("the head is new: 5 classes of other names"), std::string::npos) << other;
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
        "data.val_fraction=0.5", "optimizer.name=sgd", "augment.kind=none"}) {
    const std::string key = std::string(set).substr(0, std::string(set).find('='));
    fails({"--set", set}, {begun + ": " + key + " is"});
  }
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
  train("a", {"--resume", "--epochs", "3", "--set", "optimizer.lr=0.5"});
  EXPECT_NE(test::read_text(dir / "a/config.yaml"), begun);
  EXPECT_EQ(CsvTable(dir / "a/metrics.csv").rows(), 3);
}

// Classification beside a run must not cost the run.
TEST_F(Train, PredictionsDoNotReplaceFilesOfTheRun) {
  train("a", {"--epochs", "1"});
  for (const char* file : {"config.yaml", "split.csv", "metrics.csv", "log.txt"}) {
    const std::string path = dir / (std::string("a/") + file), before = test::read_text(path);
    for (const std::string& model : {std::string(dir / "a"), dir / "a/best.safetensors"}) {
      expect_failure(test::run("gm_infer", {data, "--model", model, "--device", "cpu", "--out", path}), 1,
                     {path, "is an input"});
      EXPECT_EQ(test::read_text(path), before);
    }
  }
  expect_success(test::run(
      "gm_infer", {data, "--model", dir / "a", "--device", "cpu", "--out", dir / "a/scores.csv", "--quiet"}));
}

// The last step of an epoch may spoil the weights: its loss was formed before.
TEST_F(Train, AValidationLossThatIsNotFiniteEndsTheRun) {
  expect_failure(
      test::run("gm_train", arguments("x", {"--epochs", "1", "--batch", "60", "--set", "optimizer.lr=400",
                                            "--set", "optimizer.name=sgd", "--set", "schedule.name=constant",
                                            "--set", "schedule.warmup_epochs=0"})),
      1, {"the validation loss became", "epoch 1", "lower optimizer.lr"});
  EXPECT_FALSE(fs::exists(dir / "x/metrics.csv"));
}

TEST_F(Train, AFullDiskLosesNothing) {
  // Everything up to the first checkpoint fits; the checkpoint does not.
  expect_failure(test::run("gm_train", arguments("a", {"--quiet"}), {.file_limit = 16 << 10}), 1,
                 {"last.safetensors", "File too large"});
  for (const auto& entry : fs::directory_iterator(dir / "a")) {
    EXPECT_NE(entry.path().extension(), ".safetensors");
    EXPECT_NE(entry.path().extension(), ".partial");
  }
}

// gm_infer folds batch norm into the convolutions and streams; here the plain network sees the same pixels.
TEST(Infer, LogitsEqualADirectEvaluation) {
  TempDir dir;
  const std::string model = dir / "model.safetensors";
  const TensorFile weights = test::write_tiny_model(model);
  constexpr int kImages = 5;  // not a multiple of the batch
  fs::create_directories(dir / "images");
  std::vector<float> pixels;
  for (int i = 0; i < kImages; ++i) {
    Image image{32, 32, std::vector<uint8_t>(32 * 32 * 3)};
    for (size_t k = 0; k < image.rgb.size(); ++k)
      image.rgb[k] = static_cast<uint8_t>((k * (7 + i) + i * 31) % 256);
    write_image(dir / ("images/g" + std::to_string(i) + ".png"), image);
    pixels.insert(pixels.end(), image.rgb.begin(), image.rgb.end());
  }
  expect_success(test::run("gm_infer", {"--model", model, dir / "images", "--logits", "--batch", "2",
                                        "--device", "cpu", "--out", dir / "p.csv"}));

  auto device = open_device("cpu", {.threads = 1});
  ParameterTable table;
  const TrainableGraph net =
      build_network(read_model(model).architecture, table, {.batch = kImages, .loss = false});
  Weights plain(*device, table, false, false);
  load_weights(weights, table, plain);
  Session session(*device, net.graph, plain, {.keep = {net.logits}});
  session.upload(net.pixels, pixels.data());
  session.forward();
  const std::vector<float> want = session.download(net.logits);

  const CsvTable csv(dir / "p.csv");
  ASSERT_EQ(csv.rows(), kImages);
  for (int i = 0; i < kImages; ++i) {
    EXPECT_EQ(csv.cell(i, 0), "g" + std::to_string(i));
    double sum = 0, top = -1;
    std::string top_name;
    for (int c = 0; c < 5; ++c) {
      const std::string& name = gz5_classes()[c];
      const double z = std::stod(csv.cell(i, csv.column("z_" + name))),
                   p = std::stod(csv.cell(i, csv.column("p_" + name)));
      EXPECT_NEAR(z, want[i * 5 + c], 2e-5 * (1 + std::abs(want[i * 5 + c])));
      sum += p;
      if (p > top) top = p, top_name = name;
    }
    EXPECT_NEAR(sum, 1, 1e-5);
    EXPECT_EQ(csv.cell(i, 1), top_name);
  }
}

}  // namespace
}  // namespace gm
