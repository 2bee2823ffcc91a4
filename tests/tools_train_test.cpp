// Training through the command line: reproducible, and inference equal to a direct evaluation of the network.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

#include "data/csv.h"
#include "data/image.h"
#include "engine/session.h"
#include "engine/weight_file.h"
#include "tests/training_runs.h"

namespace gm {
namespace {

namespace fs = std::filesystem;
using test::comparable_metrics;
using test::expect_failure;
using test::expect_same_tensors;
using test::expect_success;
using test::TempDir;
using test::Train;

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

// Shares of votes are the targets of the loss: the validation loss is their cross-entropy with what gm_infer
// says.
TEST_F(Train, SharesOfVotesAreLearnt) {
  const CsvTable labels(data + "/labels.csv");
  const std::vector<std::string> classes{"round", "in-between", "cigar", "edge-on", "spiral"};
  auto share = [](int64_t row, int64_t k, int64_t label) {
    return k == label ? 0.5 + static_cast<double>(row % 8) / 32
                      : (0.5 - static_cast<double>(row % 8) / 32) / 4;
  };
  std::string csv = fmt::format("file_loc,{}\n", fmt::join(classes, ","));
  for (int64_t r = 0; r < labels.rows(); ++r) {
    csv += labels.cell(r, labels.column("file_loc"));
    for (int64_t k = 0; k < 5; ++k)
      csv += fmt::format(",{}", share(r, k, std::stoi(labels.cell(r, labels.column("label")))));
    csv += "\n";
  }
  const std::string votes = data + "/votes.csv", names = fmt::format("[{}]", fmt::join(classes, ","));
  test::write_text(votes, csv);
  auto trained = [&](const std::string& from, const std::string& out) {
    expect_success(test::run("gm_train", {config, "--data", from, "--out", dir / out, "--device", "cpu",
                                          "--quiet", "--set", "model.class_names=" + names, "--set",
                                          "train.mixup=0.2", "--set", "train.class_weights=balanced"}));
  };
  trained(votes, "soft");
  EXPECT_NE(test::read_text(dir / "soft/log.txt").find("soft labels"), std::string::npos);

  // The last validation loss, from the logits of the last weights.
  expect_success(test::run("gm_infer", {votes, "--model", dir / "soft/last.safetensors", "--device", "cpu",
                                        "--logits", "--quiet", "--out", dir / "scores.csv"}));
  const CsvTable scores(dir / "scores.csv"), split(dir / "soft/split.csv"), metrics(dir / "soft/metrics.csv");
  double loss = 0, count = 0;
  std::vector<double> votes_of(5);  // in the training set
  for (int64_t s = 0; s < split.rows(); ++s) {
    const auto r = std::stoll(split.cell(s, split.column("row")));
    if (split.cell(s, split.column("split")) == "train")
      for (int64_t k = 0; k < 5; ++k)
        votes_of[static_cast<size_t>(k)] += share(r, k, std::stoi(labels.cell(r, labels.column("label"))));
    if (split.cell(s, split.column("split")) != "val") continue;
    double sum = 0;
    std::vector<double> z;
    for (const std::string& name : classes)
      z.push_back(std::stod(scores.cell(r, scores.column("z_" + name))));
    for (const double v : z) sum += std::exp(v);
    for (int64_t k = 0; k < 5; ++k)
      loss -= share(r, k, std::stoi(labels.cell(r, labels.column("label")))) * (z[k] - std::log(sum));
    ++count;
  }
  ASSERT_GT(count, 10);
  std::string weights = "class weights:";
  for (const double votes : votes_of)
    weights += fmt::format(" {:.4f}", (static_cast<double>(split.rows()) - count) / (5 * votes));
  EXPECT_NE(test::read_text(dir / "soft/log.txt").find(weights), std::string::npos) << weights;
  EXPECT_NEAR(std::stod(metrics.cell(metrics.rows() - 1, metrics.column("val_loss"))), loss / count, 1e-4);

  expect_success(test::run("gm_data", {"pack", votes, "--classes", fmt::format("{}", fmt::join(classes, ",")),
                                       "--out", dir / "votes.h5", "--quiet"}));
  trained(dir / "votes.h5", "packed");
  expect_same_tensors(last("soft"), last("packed"));
  const auto info = test::run("gm_data", {"info", dir / "votes.h5"});
  EXPECT_NE(info.out.find("soft       200 images"), std::string::npos) << info.out;
  const auto unnamed = test::run("gm_data", {"info", votes});
  EXPECT_NE(unnamed.out.find("unlabelled 200 (labels are read from"), std::string::npos) << unnamed.out;
}

TEST_F(Train, SettingsOfTheRecipeReachTheRun) {
  auto weights = [&](const std::string& out, std::vector<std::string> more) {
    more.insert(more.end(), {"--epochs", "1"});
    train(out, more);
    return read_safetensors(last(out)).at("predictions/kernel").bytes;
  };
  const auto plain = weights("plain", {});
  for (const std::string set : {"train.mixup=0.4", "train.cutmix=1", "train.label_smoothing=0.2"})
    EXPECT_FALSE(weights(set.substr(6, 3), {"--set", set}) == plain) << set;
}

TEST_F(Train, Tf32IsF32OnAProcessor) {
  train("f32", {"--epochs", "1"});
  train("tf32", {"--epochs", "1", "--set", "train.precision=tf32", "--set", "train.deterministic=false"});
  expect_same_tensors(last("f32"), last("tf32"));
  EXPECT_NE(test::read_text(dir / "tf32/log.txt").find("trainable), tf32"), std::string::npos);
  expect_failure(test::run("gm_train", arguments("x", {"--set", "train.precision=f16"})), 1,
                 {"precision", "f32, tf32, bf16"});
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
      1, {"the validation loss became nan in epoch 1", "lower optimizer.lr"});
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
  const NetworkGraph net =
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
