// The networks that a search trains from scratch: which ones, what they are scored on, which one is found.
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "data/csv.h"
#include "tests/search_fixture.h"
#include "tools/search/finalists.h"

namespace gm {
namespace {

namespace fs = std::filesystem;
using test::expect_success;
using test::Search;
using test::search_config;
using test::TempDir;

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
  EXPECT_ERROR(read_finalists(dir.path()), "holds no network");
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
