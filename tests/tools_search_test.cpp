// gm_search run: a search of seconds that can be repeated, killed and resumed; its counts are gm_model's;
// impossible settings are one line.
#include <array>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "data/csv.h"
#include "engine/folder_lock.h"
#include "tests/search_fixture.h"
#include "tools/search/arm.h"

namespace gm {
namespace {

namespace fs = std::filesystem;
using test::expect_failure;
using test::expect_success;
using test::Process;
using test::Search;

// Everything but the seconds.
std::string comparable(const std::string& journal) {
  std::string text;
  const Journal read(journal);
  for (JournalEntry e : read.entries()) {
    e.seconds = 0;
    text += journal_line(e) + "\n";
  }
  return text;
}

TEST_F(Search, WritesNothingWhereAnotherIsAtWork) {
  fs::create_directory(dir / "a");
  const FolderLock held(dir / "a");
  expect_failure(test::run("gm_search", arguments("a")), 1,
                 {dir / "a", "another process is at work on this run"});
  EXPECT_EQ(std::distance(fs::directory_iterator(dir / "a"), {}), 1) << "the lock alone";
}

TEST_F(Search, JournalsEveryChildWithTheCountsOfGmModel) {
  expect_success(test::run("gm_search", arguments("a")));
  const std::vector<JournalEntry> entries = Journal(journal("a")).entries();
  ASSERT_EQ(entries.size(), 3u * 4 * 3);
  std::map<std::string, int64_t> next;
  for (const JournalEntry& e : entries) {
    EXPECT_EQ(e.index, next[e.sampler]++);
    EXPECT_EQ(e.iteration, e.index / 3);
    EXPECT_GT(e.seconds, 0);
    EXPECT_NEAR(e.reward, e.score * std::pow(static_cast<double>(e.macs) / 3e5, -0.07), 1e-12);
    std::string choices;
    for (int c : e.choices) choices += (choices.empty() ? "" : ",") + std::to_string(c);
    const std::string child = dir / "child.yaml";
    expect_success(test::run("gm_search", {"child", config, "--choices", choices, "--out", child}));
    const test::Ran model = test::run("gm_model", {child, "--json"});
    expect_success(model);
    const auto j = nlohmann::json::parse(model.out);
    EXPECT_EQ(j["macs"], e.macs) << e.network;
    EXPECT_EQ(j["params_trainable"], e.parameters) << e.network;
  }
  EXPECT_EQ(next, (std::map<std::string, int64_t>{{"enas", 12}, {"random", 12}, {"halving", 12}}));
  // Chance is ENAS's control: it must not draw what ENAS draws.
  int alike = 0;
  for (const JournalEntry& a : entries)
    for (const JournalEntry& b : entries)
      alike += a.sampler == "enas" && b.sampler == "random" && a.index == b.index && a.choices == b.choices;
  EXPECT_LT(alike, 4);
}

TEST_F(Search, ResumedAfterAKillEqualsAnUnbrokenSearch) {
  expect_success(test::run("gm_search", arguments("whole")));
  auto logged = [&](const std::string& out) {  // of iterations; those that were under way are there twice
    std::istringstream log(test::read_text(dir / (out + "/log.txt")));
    std::set<std::string> lines;
    for (std::string line; std::getline(log, line);)
      if (line.find("mean reward") != std::string::npos) lines.insert(line);
    return lines;
  };
  // Killed after each number of journalled children that falls at another place of the cycle.
  for (const size_t children : {0, 2, 4, 9, 20}) {
    const std::string out = "broken" + std::to_string(children);
    Process p("gm_search", arguments(out), {});
    auto lines = [&] {
      const std::string text = fs::exists(journal(out)) ? test::read_text(journal(out)) : "";
      return static_cast<size_t>(std::count(text.begin(), text.end(), '\n'));
    };
    while (p.running() && (!fs::exists(dir / (out + "/log.txt")) || lines() < children))
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    p.send(SIGKILL);
    ASSERT_EQ(p.wait(), -SIGKILL) << "ended before it could be killed";
    const size_t kept = lines();
    // A line and a state cut short by the kill.
    test::write_text(journal(out), test::read_text(journal(out)) + "{\"sampler\":\"en");
    const std::string half = dir / (out + "/.state_enas.tmp0123456789abcdef.safetensors");
    test::write_text(half, "half");
    expect_success(test::run("gm_search", {"run", dir / (out + "/config.yaml"), "--out", dir / out,
                                           "--resume", "--device", "cpu", "--threads", "1", "--quiet"}));
    EXPECT_FALSE(fs::exists(half));
    EXPECT_EQ(comparable(journal(out)), comparable(journal("whole")))
        << "killed with " << kept << " children";
    EXPECT_EQ(logged(out), logged("whole")) << "killed with " << kept << " children";
    for (const char* sampler : {"enas", "random", "halving"})
      test::expect_same_tensors(dir / (out + "/state_" + sampler + ".safetensors"),
                                dir / (std::string("whole/state_") + sampler + ".safetensors"));
  }
}

// By chance alone the weights know of steps only, here of more than an epoch of 12 batches.
TEST_F(Search, AnIterationGoesOnInTheEpochWhereTheOneBeforeStopped) {
  for (const auto& [iterations, steps] : {std::pair{"2", "7"}, {"1", "14"}})
    expect_success(test::run(
        "gm_search", arguments(iterations, {"--set", "search.samplers=[random]", "--set", "train.epochs=1",
                                            "--set", std::string("search.iterations=") + iterations, "--set",
                                            std::string("search.train_steps=") + steps})));
  test::expect_same_tensors(dir / "1/state_random.safetensors", dir / "2/state_random.safetensors");
}

// Networks that learn nothing: the scores of one differ by the images alone.
TEST_F(Search, EveryIterationScoresOnImagesOfItsOwn) {
  expect_success(
      test::run("gm_search",
                arguments("a", {"--set", "search.samplers=[random]", "--set", "train.epochs=1", "--set",
                                "optimizer.lr=0", "--set",
                                "search.space={kernel: [3], expand: [3], width: [1], layers: [1], se: [0], "
                                "residual: [true, false]}",
                                "--set", "search.iterations=8", "--set", "search.score_batches=1"})));
  std::map<ChoiceVector, std::map<int64_t, std::set<double>>> scores;  // by network and iteration
  const Journal read(journal("a"));
  for (const JournalEntry& e : read.entries()) scores[e.choices][e.iteration].insert(e.score);
  size_t differing = 0;
  for (const auto& [network, iterations] : scores) {
    std::set<double> all;
    for (const auto& [iteration, of] : iterations) {
      EXPECT_EQ(of.size(), 1u) << iteration;
      all.insert(of.begin(), of.end());
    }
    differing += all.size() > 1;
  }
  EXPECT_EQ(differing, scores.size());
}

TEST_F(Search, InterruptedItSaysHowToResume) {
  Process p("gm_search", arguments("a", {"--set", "search.iterations=1000"}), {});
  while (p.running() && (!fs::exists(journal("a")) || test::read_text(journal("a")).empty()))
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  p.send(SIGINT);
  EXPECT_EQ(p.wait(), 0) << p.err();
  EXPECT_NE(test::read_text(dir / "a/log.txt").find("--resume --device cpu"), std::string::npos);
}

TEST_F(Search, SettingsOfTheRecipeReachTheSharedWeights) {
  auto state = [&](const std::string& out, std::vector<std::string> more) {
    more.insert(more.end(), {"--set", "search.iterations=1", "--set", "search.samplers=[random]"});
    expect_success(test::run("gm_search", arguments(out, more)));
    return test::read_text(dir / (out + "/state_random.safetensors"));
  };
  const std::string plain = state("plain", {});
  // Files of numbers: not to be printed.
  EXPECT_TRUE(state("again", {}) == plain);
  EXPECT_FALSE(state("smooth", {"--set", "train.label_smoothing=0.3"}) == plain);
  EXPECT_FALSE(state("bf16", {"--set", "train.precision=bf16"}) == plain);
  const std::string seeded = state("seeded", {"--seed", "3"});
  EXPECT_FALSE(seeded == plain);
  EXPECT_TRUE(state("set", {"--set", "train.seed=3"}) == seeded);
}

// The same images, which now lie at known places of the sky: some of them together.
TEST_F(Search, ResumedItMustMakeTheSameSplit) {
  expect_success(test::run("gm_search", arguments("a", {"--set", "search.iterations=1"})));
  const CsvTable table(data + "/labels.csv");
  std::string placed = "id_str,file_loc,label,class,ra,dec\n";
  for (int64_t r = 0; r < table.rows(); ++r) {
    for (const char* column : {"id_str", "file_loc", "label", "class"})
      placed += table.cell(r, table.column(column)) + ",";
    placed += std::to_string(r / 8) + ",5\n";
  }
  test::write_text(data + "/labels.csv", placed);
  expect_failure(test::run("gm_search", arguments("a", {"--set", "search.iterations=1", "--resume"})), 1,
                 {"a/split.csv: not the split that this search would make", data + " has changed"});
}

// Two classes, 6 and 4 images, 5 and 1 of them right.
TEST(SearchReward, MetricsOfAConfusionMatrix) {
  ConfusionMatrix confusion(2);
  for (const auto& [truth, predicted, times] : {std::array{0, 0, 5}, {0, 1, 1}, {1, 0, 3}, {1, 1, 1}})
    for (int k = 0; k < times; ++k) confusion.add(truth, predicted);
  RewardConfig c;
  EXPECT_DOUBLE_EQ(metric_of(confusion, c, -1), 0.6);
  c.metric = "macro_f1";  // 2 * 5 / (6 + 8) and 2 * 1 / (4 + 2)
  EXPECT_DOUBLE_EQ(metric_of(confusion, c, -1), (5. / 7 + 1. / 3) / 2);
  c.metric = "recall";
  EXPECT_DOUBLE_EQ(metric_of(confusion, c, 0), 5. / 6);
  EXPECT_DOUBLE_EQ(metric_of(confusion, c, 1), 0.25);
}

TEST_F(Search, OtherMetrics) {
  const std::vector<std::string> brief{"--set", "search.iterations=1", "--set", "search.samplers=[random]"};
  for (const std::vector<std::string>& metric :
       {std::vector<std::string>{"--set", "search.metric=macro_f1"},
        {"--set", "search.metric=recall", "--set", "search.class=spiral"}}) {
    std::vector<std::string> more = brief;
    more.insert(more.end(), metric.begin(), metric.end());
    const std::string out = metric.back().substr(metric.back().find('=') + 1);
    expect_success(test::run("gm_search", arguments(out, more)));
    const Journal read(journal(out));
    EXPECT_EQ(read.entries().size(), 3u);
    for (const JournalEntry& e : read.entries()) EXPECT_LE(e.score, 1);
  }
  EXPECT_NE(comparable(journal("macro_f1")), comparable(journal("spiral")));
}

TEST_F(Search, ImpossibleSettingsAreOneLine) {
  refuse({"--set", "search.target_macs=0"}, {"search.target_macs", "must be positive"});
  refuse({"--set", "search.target_macs=-1"}, {"search.target_macs", "must be positive"});
  refuse({"--set", "search.exponent=0.07"}, {"search.exponent", "out of range"});
  refuse({"--set", "search.space.kernel=[]"}, {"search.space.kernel", "the space is empty"});
  refuse({"--set", "search.iteration=3"}, {"did you mean 'iterations'"});
  refuse({"--set", "search.samplers=[genetic]"}, {"'genetic' is not one of enas, random, halving"});
  refuse({"--set", "search.max_macs=1000"}, {"search.max_macs 1000 is below the smallest network"});
  refuse({"--set", "search.metric=recall"}, {"recall"});
  refuse({"--set", "search.metric=recall", "--set", "search.class=barred"}, {"barred", "spiral"});
  refuse({"--set", "train.batch=30"}, {"train.batch 30 is larger than the validation set (25 images)"});
  refuse({"--set", "model.classes=4"}, {"5 classes, the model 4"});
  refuse({"--set",
          "search.space={kernel: [3], expand: [1], width: [1], layers: [1], se: [0], residual: [true]}"},
         {"nothing to choose"});

  test::write_text(dir / "one.csv", "file_loc,label\n" + data + "/images/0.png,round\n");
  expect_failure(test::run("gm_search", {"run", config, "--data", dir / "one.csv", "--out", dir / "refused"}),
                 1, {"one.csv", "has 1 class; a search needs at least two"});
  test::write_text(dir / "file", "");
  expect_failure(test::run("gm_search", {"run", config, "--data", data, "--out", dir / "file/a"}), 1,
                 {"file/a", "cannot create the run folder"});
  expect_failure(test::run("gm_search", {"run", config, "--data", data, "--out", dir / "none", "--resume"}),
                 1, {"no search to resume"});
  expect_failure(test::run("gm_search", {"run", config, "--out", dir / "refused"}), 1,
                 {"no data: give --data PATH or data.path in " + config});
  expect_failure(test::run("gm_search", {"run", config, "--data", data}), 2, {"--out"});
  expect_failure(test::run("gm_search", {}), 2, {"subcommand"});
  expect_failure(test::run("gm_search", {"rnu"}), 2, {"'rnu' is not a subcommand; there are run, "});

  expect_success(test::run("gm_search", arguments("a", {"--set", "search.iterations=1"})));
  expect_failure(test::run("gm_search", arguments("a", {"--set", "search.iterations=1"})), 1,
                 {"already holds a run"});
  expect_failure(test::run("gm_search", arguments("a", {"--resume"})), 1, {"differs from the search in"});
  test::name_labels(data + "/labels.csv");
  expect_failure(test::run("gm_search", arguments("a", {"--set", "search.iterations=1", "--resume"})), 1,
                 {"split.csv", "of class"});
}

// Every step is another network's: no gradients of several batches, no average of weights.
TEST_F(Search, SharedWeightsTrainWithoutAccumulationAndAverages) {
  expect_success(test::run("gm_search", arguments("a", {"--set", "search.iterations=1"})));
  expect_success(
      test::run("gm_search", arguments("b", {"--set", "search.iterations=1", "--set",
                                             "optimizer.accumulate=3", "--set", "optimizer.average=0.9"})));
  test::expect_same_tensors(dir / "a/state_enas.safetensors", dir / "b/state_enas.safetensors");
}

}  // namespace
}  // namespace gm
