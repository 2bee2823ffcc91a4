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
#include "tests/tools_test_util.h"
#include "tools/search/arm.h"
#include "tools/search/finalists.h"

namespace gm {
namespace {

namespace fs = std::filesystem;
using test::expect_failure;
using test::expect_success;
using test::Process;
using test::TempDir;

std::string search_config() {
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

class Search : public testing::Test {
 protected:
  Search() {
    test::write_text(config, search_config());
    expect_success(test::run("gm_data", {"synth", "--classes", "gz5", "--count", "120", "--size", "32",
                                         "--format", "png", "--quiet", "--out", data}));
  }
  std::vector<std::string> arguments(const std::string& out,
                                     const std::vector<std::string>& more = {}) const {
    std::vector<std::string> a{"run",      config, "--data",    data, "--out",  dir / out,
                               "--device", "cpu",  "--threads", "2",  "--quiet"};
    a.insert(a.end(), more.begin(), more.end());
    return a;
  }
  void refuse(const std::vector<std::string>& more, const std::vector<std::string>& parts) {
    expect_failure(test::run("gm_search", arguments("refused", more)), 1, parts);
    EXPECT_FALSE(fs::exists(dir / "refused")) << "nothing is written before the checks";
  }
  std::string journal(const std::string& out) const { return dir / (out + "/journal.jsonl"); }

  TempDir dir;
  std::string config = dir / "search.yaml", data = dir / "set";
};

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

// Late networks, ranked by the reward when scored anew; each network once.
TEST(SearchFinalists, AreTheBestLateNetworksOfEachSampler) {
  TempDir dir;
  SearchConfig config = read_search_config(parse_yaml(search_config(), "tiny"), "tiny");
  config.samplers = {"enas", "random"};
  config.iterations = 8;  // the last quarter: 6 and 7
  config.finalists = 2;
  Journal journal(dir / "journal.jsonl");
  int64_t index = 0;
  const std::map<std::string, double> anew{{"a", 0.5}, {"b", 0.9},   {"c", 0.7},      {"d", 0.8},
                                           {"e", 0.6}, {"early", 1}, {"too early", 1}};
  auto add = [&](const char* sampler, int64_t iteration, const char* network, int64_t macs) {
    // Choices that are the key of the network above; what the journal says of its reward is out of date.
    const auto place = static_cast<int>(std::distance(anew.begin(), anew.find(network)));
    journal.append({sampler, iteration, index++, {place}, network, macs, 7, 1, 1, 1});
  };
  add("enas", 5, "early", 10);
  for (const char* network : {"a", "b"}) add("enas", 6, network, 100);
  for (const char* network : {"c", "c"}) add("enas", 7, network, 20);
  add("random", 2, "too early", 1);
  add("random", 5, "d", 1);
  for (const char* network : {"b", "e"}) add("random", 7, network, 1);
  const SearchSpace space(config.run.architecture, config.space);
  const auto chosen =
      choose_finalists(config, space, journal, [&](const std::string&, const ChoiceVector& c) {
        const double reward = std::next(anew.begin(), c.at(0))->second;
        return std::pair(reward / 2, reward);
      });
  std::string text;
  for (const Finalist& f : chosen) text += f.name + "=" + f.network + " ";
  EXPECT_EQ(text, "base=" + SearchSpace::text(space.base()) + " enas-1=b enas-2=c random-1=d random-2=e ");
  EXPECT_EQ(chosen[1].reward, 0.9);
  EXPECT_EQ(chosen[1].score, 0.45);
  write_finalists(dir.path(), chosen);
  const auto read = read_finalists(dir.path());
  ASSERT_EQ(read.size(), chosen.size());
  EXPECT_EQ(read[2].choices, chosen[2].choices);
  EXPECT_EQ(read[2].network, "c");
}

TEST_F(Search, TrainsTheBestFromScratchBesideTheBase) {
  expect_success(test::run("gm_search", arguments("a", {"--set", "search.max_macs=150000"})));
  const auto finalists = nlohmann::json::parse(test::read_text(dir / "a/finalists.json"));
  ASSERT_GE(finalists.size(), 2u);
  EXPECT_EQ(finalists[0]["name"], "base");
  const Journal read(journal("a"));
  for (const JournalEntry& e : read.entries()) EXPECT_LE(e.macs, 150000) << e.sampler;
  double best = -1;
  for (const auto& f : finalists) {
    const auto result = nlohmann::json::parse(
        test::read_text(dir / ("a/finalists/" + f["name"].get<std::string>() + "/result.json")));
    EXPECT_EQ(result["macs"], f["macs"]);
    EXPECT_EQ(result["epochs"], 2);
    if (f["name"] == "base") continue;
    EXPECT_TRUE(std::any_of(read.entries().begin(), read.entries().end(), [&](const JournalEntry& e) {
      return e.sampler == f["sampler"] && e.network == f["network"];
    })) << f;
    best = std::max(best, result["val_accuracy"].get<double>());
  }
  // The configuration that it writes is the best one's, and trains to the same weights.
  const std::string found = dir / "a/found_a.yaml";
  expect_success(
      test::run("gm_train", {found, "--out", dir / "again", "--device", "cpu", "--threads", "2", "--quiet"}));
  const CsvTable metrics(dir / "again/metrics.csv");
  EXPECT_DOUBLE_EQ(std::stod(metrics.cell(metrics.rows() - 1, metrics.column("val_accuracy"))), best);
  EXPECT_NE(test::read_text(dir / "a/report.md").find("as accurate as the base network"), std::string::npos);
  for (const char* file : {"reward.svg", "front.svg"})
    EXPECT_TRUE(fs::exists(dir / (std::string("a/") + file)));
  // A network that is lost is trained again.
  fs::remove_all(dir / "a/finalists/base");
  expect_success(
      test::run("gm_search", {"finalists", dir / "a", "--device", "cpu", "--jobs", "2", "--quiet"}));
  EXPECT_TRUE(fs::exists(dir / "a/finalists/base/result.json"));
}

TEST_F(Search, ValidatesItsFinalistsOnImagesThatChoseThem) {
  expect_success(
      test::run("gm_search", arguments("a", {"--set", "data.folds=3", "--set", "data.fold=2", "--set",
                                             "search.samplers=[random]", "--set", "search.iterations=1"})));
  const std::string split = test::read_text(dir / "a/split.csv");
  EXPECT_EQ(split, test::read_text(dir / "a/finalists/base/split.csv"));
  size_t validation = 0;
  for (size_t at = split.find("val"); at != std::string::npos; at = split.find("val", at + 1)) ++validation;
  EXPECT_NEAR(static_cast<double>(validation), 40, 3)
      << "a third of 120, where val_fraction would be a fifth";
}

TEST_F(Search, InterruptedItSaysHowToResume) {
  Process p("gm_search", arguments("a", {"--set", "search.iterations=1000"}), {});
  while (p.running() && (!fs::exists(journal("a")) || test::read_text(journal("a")).empty()))
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  p.send(SIGINT);
  EXPECT_EQ(p.wait(), 0) << p.err();
  EXPECT_NE(test::read_text(dir / "a/log.txt").find("--resume --device cpu"), std::string::npos);
}

// What tells the finalists apart is no single batch of those that the children were scored on.
TEST_F(Search, ScoresItsFinalistsOnAllWholeBatches) {
  expect_success(test::run(
      "gm_search", arguments("a", {"--set", "search.finalists=4", "--set", "search.score_batches=1"})));
  bool thirds = false;
  for (const Finalist& f : read_finalists(dir / "a")) {
    const double of_24 = 24 * f.score;  // 25 images in batches of 8
    EXPECT_NEAR(of_24, std::round(of_24), 1e-9);
    thirds = thirds || std::lround(of_24) % 3 != 0;
  }
  EXPECT_TRUE(thirds) << "every score is one of 8 images";
  const Journal read(journal("a"));
  for (const JournalEntry& e : read.entries()) EXPECT_EQ(8 * e.score, std::round(8 * e.score));
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

TEST(SearchFinalists, AreReadAsTheyWereWritten) {
  TempDir dir;
  const Finalist f{"enas-1", "enas", {1, 0, 2}, "k3 e1 w8 n1", 11, 12, 0.5, 0.75};
  write_finalists(dir.path(), {f});
  const Finalist read = read_finalists(dir.path()).at(0);
  EXPECT_EQ(read.name, f.name);
  EXPECT_EQ(read.sampler, f.sampler);
  EXPECT_EQ(read.choices, f.choices);
  EXPECT_EQ(read.network, f.network);
  EXPECT_EQ(read.macs, f.macs);
  EXPECT_EQ(read.parameters, f.parameters);
  EXPECT_EQ(read.score, f.score);
  EXPECT_EQ(read.reward, f.reward);
  write_finalists(dir.path(), {});
  try {
    read_finalists(dir.path());
    ADD_FAILURE() << "no network is a search that is not finished";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("holds no network"), std::string::npos) << e.what();
  }
}

// Trained by a script that gives each finalist the accuracy that the test wants.
TEST_F(Search, OfEquallyAccurateFinalistsTheCheapestIsFound) {
  const SearchConfig c = read_search_config(load_config(config, {"data.path=" + data}), config);
  const SearchSpace space(c.run.architecture, c.space);
  const ChoiceVector cheap = *space.choices_of(space.smallest()), dear = *space.choices_of(space.largest());
  auto finalist = [&](const std::string& name, const ChoiceVector& choices) {
    const Architecture a = space.network(choices);
    const NetworkSize size = network_size(a);
    return Finalist{name, "enas", choices, SearchSpace::text(a), size.macs, size.parameters};
  };
  test::write_text(dir / "trainer", R"(#!/bin/sh
case "$3" in *enas-1|*enas-2) accuracy=0.5;; *enas-3) accuracy=0.25;; *) accuracy=0.75;; esac
printf "epoch,val_loss,val_accuracy\n1,1,0\n2,1,$accuracy\n" > "$3/metrics.csv"
printf 'id_str,split\na,val\n' > "$3/split.csv"
)");
  fs::permissions(dir / "trainer", fs::perms::owner_all);
  fs::create_directory(dir / "a");
  write_finalists(dir / "a", {{"base", "", {}, SearchSpace::text(space.base())},
                              finalist("enas-1", dear),
                              finalist("enas-2", cheap),
                              finalist("enas-3", dear)});
  const std::atomic<bool> never = false;
  const CandidateOptions options{.device = "cpu", .quiet = true, .trainer = dir / "trainer"};
  train_finalists(c, space, Journal(dir / "journal.jsonl"), dir / "a", options, never);
  const std::string found = test::read_text(dir / "a/found_a.yaml");
  const NetworkSize size = network_size(space.smallest());
  EXPECT_NE(found.find(SearchSpace::text(space.smallest()) + "; " + std::to_string(size.parameters) +
                       " parameters, " + std::to_string(size.macs) + " MACs, validation accuracy 0.5000"),
            std::string::npos)
      << found;
  EXPECT_NE(found.find("name: tiny-found"), std::string::npos) << found;
}

}  // namespace
}  // namespace gm
