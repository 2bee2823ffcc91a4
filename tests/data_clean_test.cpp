#include "data/clean_samples.h"

#include <filesystem>
#include <map>

#include "data/csv.h"
#include "data/dataset.h"
#include "tests/data_test_util.h"
#include "tests/tools_test_util.h"

namespace gm {
namespace {
using test::TempDir;

const std::vector<std::pair<int, int>> kTree = {{1, 3}, {2, 2}, {3, 2}, {4, 2},  {5, 4}, {6, 2},
                                                {7, 3}, {8, 7}, {9, 3}, {10, 3}, {11, 6}};

std::string header() {
  std::string text = "GalaxyID";
  for (auto [q, answers] : kTree)
    for (int a = 1; a <= answers; ++a) text += ",Class" + std::to_string(q) + "." + std::to_string(a);
  return text + "\n";
}

/// A row whose sums are right: what is not given falls to the last answer of its question.
std::string row(const std::string& id, std::map<std::string, double> votes) {
  auto name = [](int q, int a) { return "Class" + std::to_string(q) + "." + std::to_string(a); };
  const std::map<int, std::string> parent = {{2, "Class1.2"}, {3, "Class2.2"},  {4, "Class2.2"},
                                             {5, "Class2.2"}, {7, "Class1.1"},  {8, "Class6.1"},
                                             {9, "Class2.1"}, {10, "Class4.1"}, {11, "Class4.1"}};
  std::string text = id;
  for (auto [q, answers] : kTree) {
    double rest = parent.count(q) ? votes[parent.at(q)] : 1;
    for (int a = 1; a < answers; ++a) rest -= votes[name(q, a)];
    votes.try_emplace(name(q, answers), rest);
    for (int a = 1; a <= answers; ++a) text += "," + std::to_string(votes[name(q, a)]);
  }
  return text + "\n";
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos);
  return text.replace(at, from.size(), to);
}

TEST(DataClean, EveryClassHasItsRuleAndItsEdge) {
  TempDir dir;
  test::write_text(
      dir / "t.csv",
      header() + row("1", {{"Class1.1", .9}, {"Class7.1", .5}}) +             // round, at the threshold
          row("2", {{"Class1.1", .9}, {"Class7.1", .499999}}) +               // just below
          row("3", {{"Class1.1", .6}, {"Class7.2", .55}}) +                   // in-between
          row("4", {{"Class1.1", .8}, {"Class7.2", .1}, {"Class7.3", .7}}) +  // cigar
          row("5", {{"Class1.2", .7}, {"Class2.1", .602}}) +                  // edge-on, at the threshold
          row("6", {{"Class1.2", .7}, {"Class2.1", .601}}) +                  // just below
          row("7", {{"Class1.2", .9}, {"Class2.2", .8}, {"Class2.1", .1}, {"Class4.1", .619}}) +  // spiral
          row("8",
              {{"Class1.2", .9}, {"Class2.2", .7}, {"Class2.1", .2}, {"Class4.1", .65}}));  // not face-on
  const CleanSamples s = select_clean_samples(dir / "t.csv", {});
  EXPECT_EQ(s.rows, 8);
  EXPECT_EQ(s.counts, (std::array<int64_t, 5>{1, 1, 1, 1, 1}));
  ASSERT_EQ(s.galaxies.size(), 5u);
  const std::vector<std::string> ids = {"1", "3", "4", "5", "7"};
  for (int k = 0; k < 5; ++k) {
    EXPECT_EQ(s.galaxies[k].id, ids[k]);
    EXPECT_EQ(s.galaxies[k].label, k);
  }
  EXPECT_LT(s.largest_sum_error, 1e-5);
  EXPECT_TRUE(s.unchecked.empty());
}

TEST(DataClean, ConditionalDividesByTheParent) {
  TempDir dir;
  // 0.3 of all, but 0.6 of the half that said smooth: round under the other reading only.
  test::write_text(dir / "t.csv",
                   header() + row("1", {{"Class1.1", .5}, {"Class7.1", .3}}) +
                       // Smooth and round, and at the same time featured and edge-on.
                       row("2", {{"Class1.1", .5}, {"Class7.1", .3}, {"Class1.2", .45}, {"Class2.1", .4}}));
  EXPECT_TRUE(select_clean_samples(dir / "t.csv", {}).galaxies.empty());
  const CleanSamples s = select_clean_samples(dir / "t.csv", {.conditional = true});
  EXPECT_EQ(s.counts, (std::array<int64_t, 5>{2, 0, 0, 1, 0}));
  EXPECT_EQ(s.ambiguous, 1);
  ASSERT_EQ(s.galaxies.size(), 1u);
  EXPECT_EQ(s.galaxies[0].id, "1");
}

TEST(DataClean, BadLabelFilesAreNamed) {
  TempDir dir;
  auto error = [&](const std::string& text) {
    test::write_text(dir / "t.csv", text);
    return test::error_of([&] { select_clean_samples(dir / "t.csv", {}); });
  };
  auto expect = [&](const std::string& text, const std::vector<std::string>& parts) {
    const std::string e = error(text);
    for (const auto& part : parts) EXPECT_NE(e.find(part), std::string::npos) << part << " not in " << e;
  };
  const std::string good = row("100008", {{"Class1.1", .9}, {"Class7.1", .5}});
  EXPECT_EQ(error(header() + good), "");
  expect(replaced(header(), "Class7.1", "Class7.one") + good, {"t.csv", "no column Class7.1"});
  expect(replaced(header(), "GalaxyID", "id") + good, {"no column GalaxyID"});
  expect(header() + good + good, {"t.csv:3", "100008", "twice"});
  expect(header() + replaced(good, "0.900000", "1.900000"), {"t.csv:2", "1.900000", "0..1"});
  expect(header() + replaced(good, "0.900000", "nan"), {"nan"});
  expect(header() + replaced(good, "0.900000", ""), {"\"\""});
  expect(header() + good + "7,1\n", {"t.csv:3"});
}

TEST(DataClean, ValuesThatDoNotAddUpCountAsTheyStandAndAreTold) {
  TempDir dir;
  const std::map<std::string, double> round = {{"Class1.1", .9}, {"Class7.1", .5}};
  test::write_text(dir / "t.csv", header() + row("1", {{"Class1.2", .9}, {"Class2.1", .8}}) +
                                      replaced(row("2", round), "0.900000", "0.7") +
                                      replaced(row("3", round), "0.500000", "0.6"));
  const CleanSamples s = select_clean_samples(dir / "t.csv", {});
  EXPECT_EQ(s.counts, (std::array<int64_t, 5>{2, 0, 0, 1, 0}));
  EXPECT_EQ(s.off, 2);
  for (const char* part : {"t.csv:3", "galaxy 2", "question 1", "0.8000", "1.0000"})
    EXPECT_NE(s.first_off.find(part), std::string::npos) << s.first_off;
  const auto ran = test::run("gm_data", {"clean", dir / "t.csv"});
  test::expect_success(ran);
  EXPECT_NE(ran.err.find("2 of 3 galaxies"), std::string::npos) << ran.err;
}

TEST(DataClean, TheSixColumnsOfTheRulesAreEnough) {
  TempDir dir;
  test::write_text(dir / "t.csv",
                   "GalaxyID,Class7.1,Class7.2,Class7.3,Class2.1,Class2.2,Class4.1\n"
                   "1,0.5,0.1,0,0,0.2,0\n2,0,0,0,0.1,0.715,0.619\n3,0,0,0,0.1,0.714,0.7\n");
  const CleanSamples s = select_clean_samples(dir / "t.csv", {});
  EXPECT_EQ(s.counts, (std::array<int64_t, 5>{1, 0, 0, 0, 1}));
  EXPECT_EQ(s.unchecked.size(), 11u);
  const std::string e = test::error_of([&] { select_clean_samples(dir / "t.csv", {.conditional = true}); });
  EXPECT_NE(e.find("no column Class1.1"), std::string::npos) << e;
}

TEST(DataClean, TheToolWritesACatalogThatTrainingReads) {
  TempDir dir;
  std::filesystem::create_directories(dir / "images");
  write_image(dir / "images/11.jpg", test::gradient(64, 64));
  write_image(dir / "images/12.jpg", test::gradient(64, 64));
  test::write_text(dir / "t.csv", header() + row("11", {{"Class1.1", .9}, {"Class7.2", .8}}) +
                                      row("12", {{"Class1.2", .9}, {"Class2.1", .8}}) +
                                      row("13", {{"Class1.2", .9}, {"Class2.1", .8}}));
  const auto ran =
      test::run("gm_data", {"clean", dir / "t.csv", "--images", dir / "images", "--out", dir / "clean.csv"});
  test::expect_success(ran);
  for (const char* part : {"8436", "28793", "left out: 1"})
    EXPECT_NE(ran.out.find(part), std::string::npos) << ran.out;
  const auto data = open_dataset(dir / "clean.csv", {.classes = gz5_classes()});
  ASSERT_EQ(data->size(), 2);
  EXPECT_EQ(data->label(0), 1);
  EXPECT_EQ(data->label(1), 3);
  EXPECT_EQ(data->read(1).width, 64);
  test::expect_failure(test::run("gm_data", {"clean", dir / "none.csv"}), 1, {"none.csv"});
  // A catalog with such a path could not be read.
  std::filesystem::rename(dir / "images", dir / "im\xE9");
  test::expect_failure(
      test::run("gm_data", {"clean", dir / "t.csv", "--images", dir / "im\xE9", "--out", dir / "latin.csv"}),
      1, {"im\xE9/11.jpg", "not UTF-8"});
  EXPECT_FALSE(std::filesystem::exists(dir / "latin.csv"));
  std::filesystem::rename(dir / "im\xE9", dir / "images");
  test::expect_failure(test::run("gm_data", {"clean", dir / "images"}), 1, {dir / "images", "is a folder"});
}

/// The counts of the paper, on the challenge's own file.
TEST(DataClean, TheChallengesFileGivesThePapersCounts) {
  const char* file = std::getenv("GM_GALAXYZOO_LABELS");
  if (!file) GTEST_SKIP() << "GM_GALAXYZOO_LABELS does not name training_solutions_rev1.csv";
  EXPECT_EQ(select_clean_samples(file, {}).counts, kPaperCleanCounts);
}

}  // namespace
}  // namespace gm
