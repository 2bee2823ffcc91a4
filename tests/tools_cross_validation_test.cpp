// gm_train --cross-validate: folds are ordinary runs, scores are those of gm_eval, interruptions cost
// nothing.
#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "data/csv.h"
#include "engine/folder_lock.h"
#include "tests/python_test_util.h"
#include "tests/tools_test_util.h"

namespace gm {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using test::expect_failure;
using test::expect_same_tensors;
using test::expect_success;
using test::run;
using test::TempDir;

json read_json(const std::string& path) { return json::parse(test::read_text(path)); }

/// 90 synthetic images; 60 of them are 7 steps an epoch in each of three folds.
class CrossValidation : public testing::Test {
 protected:
  CrossValidation() {
    test::write_text(config, test::tiny_config());
    expect_success(run("gm_data", {"synth", "--classes", "gz5", "--count", "90", "--size", "40", "--format",
                                   "png", "--quiet", "--out", data}));
  }
  std::vector<std::string> arguments(const std::string& out,
                                     const std::vector<std::string>& more = {}) const {
    std::vector<std::string> a{config,    "--data",   data,  "--cross-validate", "3", "--out",
                               dir / out, "--device", "cpu", "--threads",        "2"};
    a.insert(a.end(), more.begin(), more.end());
    return a;
  }
  // Everything of a summary but speed.
  static json scores(const std::string& path) {
    json j = read_json(path);
    for (const char* key : {"mean", "std"}) j[key].erase("images_per_second");
    for (json& f : j["fold_scores"]) f.erase("images_per_second");
    return j;
  }

  TempDir dir;
  std::string config = dir / "tiny.yaml", data = dir / "set";
};

TEST_F(CrossValidation, FoldsAreRunsAndScoresAreOutOfFold) {
  expect_success(run("gm_train", arguments("cv", {"--quiet"})));
  const json s = read_json(dir / "cv/summary.json");
  EXPECT_EQ(s["folds_finished"], 3);
  EXPECT_EQ(s["n"], 90);
  EXPECT_EQ(s["weights"], "last epoch");
  EXPECT_EQ(s["classes"], json(gz5_classes()));
  EXPECT_EQ(s["input_size"], 32);
  const CsvTable folds(dir / "cv/folds.csv");
  ASSERT_EQ(folds.rows(), 90);
  double correct = 0, accuracies = 0, recalls = 0;
  std::vector<double> accuracy;
  for (int k = 1; k <= 3; ++k) {
    const std::string fold = dir / ("cv/fold" + std::to_string(k));
    const json f = s["fold_scores"][static_cast<size_t>(k - 1)];
    // The fold's images are those of its split.csv and its predictions, and no others.
    std::set<std::string> of_fold, validated, predicted;
    for (int64_t r = 0; r < folds.rows(); ++r)
      if (folds.cell(r, 3) == std::to_string(k)) of_fold.insert(folds.cell(r, 0));
    const CsvTable split(fold + "/split.csv"), predictions(fold + "/predictions.csv");
    ASSERT_EQ(split.rows(), 90);
    for (int64_t r = 0; r < split.rows(); ++r)
      if (split.cell(r, split.column("split")) == "val") validated.insert(split.cell(r, 0));
    for (int64_t r = 0; r < predictions.rows(); ++r) {
      predicted.insert(predictions.cell(r, 0));
      correct += predictions.cell(r, 1) == predictions.cell(r, 2);
    }
    EXPECT_EQ(of_fold, validated);
    EXPECT_EQ(of_fold, predicted);
    EXPECT_EQ(f["n"], of_fold.size());
    // The last epoch's accuracy, and that of gm_eval, number for number.
    const CsvTable metrics(fold + "/metrics.csv");
    EXPECT_NEAR(f["accuracy"].get<double>(),
                std::stod(metrics.cell(metrics.rows() - 1, metrics.column("val_accuracy"))), 1e-6);
    expect_success(run("gm_eval", {"--model", fold + "/last.safetensors", "--data", data, "--split", "val",
                                   "--out", dir / "eval", "--device", "cpu", "--quiet"}));
    const json e = read_json(dir / "eval/metrics.json");
    for (const char* key :
         {"accuracy", "macro_precision", "macro_recall", "macro_f1", "weighted_f1", "confusion"})
      EXPECT_EQ(f[key], e[key]) << key;
    for (int c = 0; c < 5; ++c) EXPECT_EQ(f["class_accuracy"][c], e["per_class"][c]["recall"]);
    EXPECT_EQ(s["params_total"], e["params_total"]);
    EXPECT_EQ(s["macs"], e["macs"]);
    accuracy.push_back(f["accuracy"]);
    accuracies += accuracy.back();
    recalls += f["class_accuracy"][2].get<double>();
  }
  const double mean = accuracies / 3;
  double squares = 0;
  for (double a : accuracy) squares += (a - mean) * (a - mean);
  EXPECT_NEAR(s["mean"]["accuracy"].get<double>(), mean, 1e-14);
  EXPECT_NEAR(s["std"]["accuracy"].get<double>(), std::sqrt(squares / 2), 1e-14);
  EXPECT_NEAR(s["mean"]["class_accuracy"][2].get<double>(), recalls / 3, 1e-14);
  EXPECT_NEAR(s["pooled"]["accuracy"].get<double>(), correct / 90, 1e-14);

  // One fold alone, from its own configuration or from keys.
  expect_success(run("gm_train", {dir / "cv/fold2/config.yaml", "--out", dir / "two", "--device", "cpu",
                                  "--threads", "2", "--quiet"}));
  expect_same_tensors(dir / "cv/fold2/last.safetensors", dir / "two/last.safetensors");
  EXPECT_EQ(test::read_text(dir / "cv/fold2/split.csv"), test::read_text(dir / "two/split.csv"));
}

TEST_F(CrossValidation, ResumesInTheFoldThatWasInterrupted) {
  expect_success(run("gm_train", arguments("whole", {"--quiet"})));
  {
    test::Process p("gm_train", arguments("cut", {"--set", "train.checkpoint_steps=2"}), {});
    ASSERT_TRUE(test::wait_for_mid_epoch(p, dir / "cut/fold2/last.safetensors")) << p.err();
    p.send(SIGTERM);
    EXPECT_EQ(p.wait(), 0);
    const std::string how =
        (dir / "cut") + "/config.yaml --cross-validate 3 --out " + (dir / "cut") + " --resume";
    EXPECT_NE(p.out().find("Resume with: gm_train " + how), std::string::npos) << p.out();
  }
  EXPECT_TRUE(fs::exists(dir / "cut/fold1/scores.json"));
  EXPECT_FALSE(fs::exists(dir / "cut/fold2/scores.json"));
  EXPECT_FALSE(fs::exists(dir / "cut/summary.json"));
  const auto first = fs::last_write_time(dir / "cut/fold1/last.safetensors");
  expect_success(run("gm_train", {dir / "cut/config.yaml", "--cross-validate", "3", "--out", dir / "cut",
                                  "--resume", "--device", "cpu", "--threads", "2"}));
  EXPECT_EQ(first, fs::last_write_time(dir / "cut/fold1/last.safetensors"));
  for (const char* fold : {"fold1", "fold2", "fold3"})
    expect_same_tensors(dir / (std::string("whole/") + fold + "/last.safetensors"),
                        dir / (std::string("cut/") + fold + "/last.safetensors"));
  EXPECT_EQ(scores(dir / "whole/summary.json"), scores(dir / "cut/summary.json"));

  // Fold by fold gives the same, too.
  expect_success(run("gm_train", arguments("parts", {"--folds", "3", "--quiet"})));
  EXPECT_EQ(read_json(dir / "parts/summary.json")["folds_finished"], 1);
  EXPECT_TRUE(read_json(dir / "parts/summary.json")["std"]["accuracy"].is_null());
  expect_success(run("gm_train", arguments("parts", {"--folds", "1,2", "--quiet", "--resume"})));
  EXPECT_EQ(scores(dir / "whole/summary.json"), scores(dir / "parts/summary.json"));
}

// The images of a large fold take minutes.
TEST_F(CrossValidation, AnInterruptedScoringIsRepeatedOnResume) {
  expect_success(run("gm_train", arguments("whole", {"--epochs", "1", "--quiet"})));
  fs::copy(dir / "whole", dir / "cut", fs::copy_options::recursive);
  for (const char* file : {"cut/fold2/scores.json", "cut/fold2/predictions.csv", "cut/summary.json"})
    fs::remove(dir / file);
  {
    test::AwaitedFile split(dir / "cut/fold2/split.csv");
    test::Process p("gm_train", arguments("cut", {"--epochs", "1", "--resume"}), {});
    ASSERT_TRUE(split.reached_by(p)) << p.err();
    p.send(SIGINT);
    split.give();
    EXPECT_EQ(p.wait(), 0) << p.err();
    EXPECT_NE(p.out().find("before fold 2 was scored. Resume with: gm_train "), std::string::npos) << p.out();
  }
  for (const char* file : {"cut/fold2/scores.json", "cut/fold2/predictions.csv", "cut/summary.json"})
    EXPECT_FALSE(fs::exists(dir / file)) << file;
  fs::remove(dir / "cut/fold2/split.csv");
  fs::copy_file(dir / "whole/fold2/split.csv", dir / "cut/fold2/split.csv");
  expect_success(run("gm_train", arguments("cut", {"--epochs", "1", "--quiet", "--resume"})));
  EXPECT_EQ(scores(dir / "whole/summary.json"), scores(dir / "cut/summary.json"));
}

TEST_F(CrossValidation, RefusesWhatWouldMislead) {
  auto refused = [&](const std::vector<std::string>& more, const std::vector<std::string>& parts) {
    expect_failure(run("gm_train", arguments("x", more)), 1, parts);
    EXPECT_FALSE(fs::exists(dir / "x"));
  };
  refused({"--set", "train.patience=3"}, {"train.patience=0"});
  refused({"--set", "data.test_fraction=0.1"}, {"test_fraction"});
  refused({"--folds", "4"}, {"--folds 4", "1 to 3"});
  refused({"--batch", "61"}, {"train.batch 61", "60 images"});
  refused({"--resume"}, {"no folds.csv"});
  refused({"--set", "train.freeze=[nolayer]"}, {"nolayer"});
  expect_failure(run("gm_train", {config, "--data", data, "--out", dir / "x", "--cross-validate", "40"}), 1,
                 {"class '", "objects, fewer than the 40 folds"});
  expect_failure(run("gm_train", {config, "--data", data, "--folds", "1"}), 2, {"--cross-validate"});
  expect_failure(run("gm_train", {config, "--data", data, "--out", dir / "x", "--set", "data.folds=3",
                                  "--set", "data.fold=4"}),
                 1, {"data.fold", "3 folds"});

  expect_success(run("gm_train", arguments("x", {"--folds", "1", "--epochs", "1", "--quiet"})));
  expect_failure(run("gm_train", arguments("x")), 1, {"already holds folds", "--resume"});
  expect_failure(run("gm_train", arguments("x", {"--resume", "--epochs", "2"})), 1,
                 {"config.yaml", "train.epochs is 1 there and 2 here"});
  fs::remove(dir / "x/config.yaml");
  expect_failure(run("gm_train", arguments("x", {"--resume", "--seed", "4"})), 1, {"folds.csv", "--seed"});
}

TEST_F(CrossValidation, OneProcessAtATimeInAFolder) {
  fs::create_directory(dir / "x");
  {
    const FolderLock held(dir / "x");
    expect_failure(run("gm_train", arguments("x")), 1, {dir / "x", "another process is at work on this run"});
    EXPECT_FALSE(fs::exists(dir / "x/folds.csv"));
    EXPECT_FALSE(fs::exists(dir / "x/config.yaml"));
  }
  // Of two that begin together with different seeds one is all that is found afterwards.
  test::Process a("gm_train", arguments("x", {"--epochs", "1", "--seed", "1", "--quiet"}), {}),
      b("gm_train", arguments("x", {"--epochs", "1", "--seed", "2", "--quiet"}), {});
  const int a_code = a.wait(), b_code = b.wait();
  EXPECT_EQ(a_code + b_code, 1) << a.err() << b.err();
  const std::string error = a.err() + b.err();
  EXPECT_EQ(std::count(error.begin(), error.end(), '\n'), 1) << error;
  expect_success(
      run("gm_train", arguments("alone", {"--epochs", "1", "--seed", a_code ? "2" : "1", "--quiet"})));
  EXPECT_EQ(test::read_text(dir / "x/folds.csv"), test::read_text(dir / "alone/folds.csv"));
  EXPECT_EQ(scores(dir / "x/summary.json"), scores(dir / "alone/summary.json"));
  {
    const FolderLock held(dir / "x");
    expect_failure(
        run("gm_train", arguments("x", {"--epochs", "1", "--seed", a_code ? "2" : "1", "--resume"})), 1,
        {"another process"});
  }
}

// With --folds several processes share the folder, each at its own folds.
TEST_F(CrossValidation, TwoProcessesShareTheFolds) {
  auto fold = [&](const std::string& k, std::vector<std::string> more) {
    more.insert(more.end(),
                {"--folds", k, "--epochs", "2000", "--set", "train.checkpoint_steps=2", "--quiet"});
    return arguments("x", more);
  };
  test::Process first("gm_train", fold("1", {}), {});
  ASSERT_TRUE(test::wait_for_mid_epoch(first, dir / "x/fold1/last.safetensors")) << first.err();
  const std::string note = test::read_text(dir / "x/config.yaml") + "# a note of the user's\n";
  test::write_text(dir / "x/config.yaml", note);
  {
    test::Process other("gm_train", fold("2", {"--resume"}), {});
    ASSERT_TRUE(test::wait_for_mid_epoch(other, dir / "x/fold2/last.safetensors")) << other.err();
    other.send(SIGTERM);
    EXPECT_EQ(other.wait(), 0);
  }
  EXPECT_TRUE(first.running());
  first.send(SIGTERM);
  EXPECT_EQ(first.wait(), 0);
  // Nothing had changed.
  EXPECT_EQ(test::read_text(dir / "x/config.yaml"), note);
}

TEST_F(CrossValidation, FoldsKeepObjectsTogetherAndScoreInTheRunsPrecision) {
  // Pairs of images of one object, half an arcsecond apart.
  const CsvTable labels(data + "/labels.csv");
  std::string catalog = "id_str,label,class,ra,dec\n";
  std::map<std::string, int64_t> object;
  for (int64_t r = 0; r < labels.rows(); ++r) {
    object[labels.cell(r, labels.column("id_str"))] = r / 2;
    catalog += fmt::format("{},{},{},{},{:.6f}\n", labels.cell(r, labels.column("id_str")),
                           labels.cell(r, labels.column("label")), labels.cell(r, labels.column("class")),
                           10 + static_cast<double>(r / 2), r % 2 ? 0.5 / 3600 : 0);
  }
  test::write_text(data + "/labels.csv", catalog);
  expect_success(run("gm_train", arguments("x", {"--epochs", "1", "--set", "train.precision=bf16", "--folds",
                                                 "1", "--quiet"})));
  const CsvTable folds(dir / "x/folds.csv");
  std::map<int64_t, std::set<std::string>> of_object;
  for (int64_t r = 0; r < folds.rows(); ++r) of_object[object.at(folds.cell(r, 0))].insert(folds.cell(r, 3));
  EXPECT_EQ(of_object.size(), 45u);
  for (const auto& [name, in] : of_object) EXPECT_EQ(in.size(), 1u) << name;

  auto scores_of = [&](const std::string& precision) {
    const std::string out = dir / (precision + ".csv");
    expect_success(run("gm_infer", {"--model", dir / "x/fold1/last.safetensors", data, "--out", out,
                                    "--device", "cpu", "--precision", precision, "--quiet"}));
    std::map<std::string, std::string> rows;
    const CsvTable t(out);
    for (int64_t r = 0; r < t.rows(); ++r) rows[t.cell(r, 0)] = t.cell(r, t.column("p_spiral"));
    return rows;
  };
  const auto bf16 = scores_of("bf16"), f32 = scores_of("f32");
  EXPECT_NE(bf16, f32);
  const CsvTable predictions(dir / "x/fold1/predictions.csv");
  for (int64_t r = 0; r < predictions.rows(); ++r)
    EXPECT_EQ(predictions.cell(r, predictions.column("p_spiral")), bf16.at(predictions.cell(r, 0)));
}

// tools/accuracy_table.py on the tree's own files gives the README's table, and on a fresh summary its
// figures.
TEST_F(CrossValidation, TableOfTheReadmeIsTheScripts) {
  const std::string python = test::python_with("json");
  if (python.empty()) GTEST_SKIP() << "no Python (GM_PYTHON names one)";
  const std::string source = GM_SOURCE_DIR, out = dir / "table.md",
                    table = python + " '" + source + "/tools/accuracy_table.py' ";
  auto printed = [&](const std::string& arguments) {
    EXPECT_EQ(std::system((table + arguments + " > '" + out + "' 2>&1").c_str()), 0) << test::read_text(out);
    return test::read_text(out);
  };
  const std::string accuracy = source + "/tests/accuracy/";
  const std::string readme = test::read_text(source + "/README.md");
  const std::string tree = printed("--speed '" + accuracy + "speed.jsonl' '" + accuracy + "'*.json");
  EXPECT_NE(readme.find("-->\n\n" + tree + "\n<!-- accuracy table: end"), std::string::npos) << tree;

  expect_success(run("gm_train", arguments("cv", {"--epochs", "1", "--quiet"})));
  const std::string fresh = printed("'" + (dir / "cv/summary.json") + "'");
  const double mean = read_json(dir / "cv/summary.json")["mean"]["accuracy"];
  EXPECT_NE(fresh.find("| tiny | 32 px |"), std::string::npos) << fresh;
  EXPECT_NE(fresh.find(fmt::format("| {:.1f} ± ", 100 * mean)), std::string::npos) << fresh;
  test::write_text(dir / "half.json", R"({"folds": 5, "folds_finished": 2})");
  EXPECT_NE(std::system((table + "'" + (dir / "half.json") + "' 2> '" + out + "'").c_str()), 0);
  EXPECT_NE(test::read_text(out).find("only 2 of 5 folds"), std::string::npos) << test::read_text(out);
}

// The rest of what the table of accuracies is made from.
TEST_F(CrossValidation, TheSummaryRepeatsTheRecipe) {
  test::write_text(config, test::tiny_config() + "recipe: sane\nrecipes: {sane: {}}\n");
  expect_success(
      run("gm_train", arguments("cv", {"--epochs", "3", "--batch", "10", "--seed", "5", "--quiet"})));
  const json s = read_json(dir / "cv/summary.json");
  EXPECT_EQ(s["network"], "tiny");
  EXPECT_EQ(s["data"], data);
  EXPECT_EQ(s["recipe"], "sane");
  EXPECT_EQ(s["epochs"], 3);
  EXPECT_EQ(s["batch"], 10);
  EXPECT_EQ(s["seed"], 5);
  EXPECT_LT(s["params_trainable"], s["params_total"]);
  // Scores of all images together, from the sum of the folds' counts.
  std::vector<double> truth(5), predicted(5), right(5);
  for (const json& f : s["fold_scores"]) {
    for (int t = 0; t < 5; ++t)
      for (int p = 0; p < 5; ++p) {
        const double n = f["confusion"][t][p];
        truth[t] += n, predicted[p] += n;
        if (t == p) right[t] += n;
      }
    // A fold's speed is the median of its epochs.
    const CsvTable metrics(dir / fmt::format("cv/fold{}/metrics.csv", f["fold"].get<int>()));
    std::vector<double> rates;
    for (int64_t r = 0; r < 3; ++r)
      rates.push_back(std::stod(metrics.cell(r, metrics.column("images_per_second"))));
    std::sort(rates.begin(), rates.end());
    EXPECT_EQ(f["images_per_second"], rates[1]);
  }
  double precision = 0, recall = 0;
  for (int c = 0; c < 5; ++c) {
    precision += predicted[c] > 0 ? right[c] / predicted[c] / 5 : 0;
    recall += truth[c] > 0 ? right[c] / truth[c] / 5 : 0;
  }
  EXPECT_NEAR(s["pooled"]["macro_precision"].get<double>(), precision, 1e-12);
  EXPECT_NEAR(s["pooled"]["macro_recall"].get<double>(), recall, 1e-12);
}

}  // namespace
}  // namespace gm
