#include "data/split.h"

#include <map>
#include <set>

#include "kernels/common/philox.h"
#include "tests/data_test_util.h"

namespace gm {
namespace {
using test::FakeDataset;

std::map<int, int> histogram(const Dataset& data, const std::vector<int64_t>& rows) {
  std::map<int, int> counts;
  for (int64_t row : rows) ++counts[data.label(row)];
  return counts;
}

TEST(DataSplit, EveryClassInItsShareAndEveryRowOnce) {
  FakeDataset data(0, 3);
  for (int i = 0; i < 500; ++i) data.labels.push_back(i < 300 ? 0 : i < 480 ? 1 : 2);
  Split split = make_split(data, {.val = .1, .test = .2, .seed = 4});
  EXPECT_EQ(histogram(data, split.val), (std::map<int, int>{{0, 30}, {1, 18}, {2, 2}}));
  EXPECT_EQ(histogram(data, split.test), (std::map<int, int>{{0, 60}, {1, 36}, {2, 4}}));
  std::set<int64_t> all(split.train.begin(), split.train.end());
  all.insert(split.val.begin(), split.val.end());
  all.insert(split.test.begin(), split.test.end());
  EXPECT_EQ(all.size(), 500u);
  EXPECT_EQ(split.train.size() + split.val.size() + split.test.size(), 500u);
}

TEST(DataSplit, SeededAndReproducible) {
  FakeDataset data(200, 2);
  EXPECT_EQ(make_split(data, {.seed = 1}).val, make_split(data, {.seed = 1}).val);
  EXPECT_NE(make_split(data, {.seed = 1}).val, make_split(data, {.seed = 2}).val);
}

TEST(DataSplit, SmallClassesKeepATrainingImage) {
  FakeDataset data(0, 3);
  data.labels = {0, 1, 1, 2, 2, 2, -1};
  Split split = make_split(data, {.val = .1, .test = .1, .seed = 0});
  auto train = histogram(data, split.train), val = histogram(data, split.val);
  EXPECT_EQ(train[0], 1);
  EXPECT_EQ(train[1], 2);
  EXPECT_EQ(train[2], 1);
  EXPECT_EQ(val[2], 1);
  EXPECT_EQ(train.count(-1) + val.count(-1), 0u) << "unlabelled rows are in no part";
}

TEST(DataSplit, LargeSharesLeaveEveryPartAnImage) {
  FakeDataset data(0, 1);
  data.labels = {0, 0, 0};
  const Split split = make_split(data, {.val = .9, .test = .05, .seed = 0});
  EXPECT_EQ(split.train.size(), 1u);
  EXPECT_EQ(split.val.size(), 1u);
  EXPECT_EQ(split.test.size(), 1u);
}

TEST(DataSplit, SkyGroupsAcrossTheSeamAndAtThePole) {
  FakeDataset data(7, 1);
  double arcsec = 1.0 / 3600;
  data.positions = {{0.1 * arcsec, 0},      {360 - 0.3 * arcsec, 0}, {0, 2 * arcsec},
                    {10, 90 - .2 * arcsec}, {190, 90 - .2 * arcsec}, {100, 20},
                    {100 + .9 * arcsec, 20}};
  EXPECT_EQ(sky_groups(data, 1), (std::vector<int64_t>{0, 0, 1, 2, 2, 3, 3}));
  EXPECT_EQ(sky_groups(data, 0), (std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6}));
}

TEST(DataSplit, OneObjectNeverCrosses) {
  FakeDataset data(600, 3);
  PhiloxStream rng(1, RngUse::sample);
  for (int i = 0; i < 600; ++i) data.positions.push_back({rng.below(200) * .01, rng.uniform() * 1e-5});
  auto group = sky_groups(data, 1);
  Split split = make_split(data, {.val = .2, .test = .2, .seed = 7});
  std::map<int64_t, int> part;
  int k = 0;
  for (auto* rows : {&split.train, &split.val, &split.test}) {
    EXPECT_GT(rows->size(), 60u);
    for (int64_t row : *rows) EXPECT_EQ(part.emplace(group[row], k).first->second, k);
    ++k;
  }
}

TEST(DataSplit, FileRoundTripAndItsErrors) {
  test::TempDir dir;
  FakeDataset data(50, 2);
  Split split = make_split(data, {.val = .2, .test = .1, .seed = 3});
  std::string path = dir / "split.csv";
  write_split(path, data, split);
  Split back = read_split(path, data);
  EXPECT_EQ(back.train, split.train);
  EXPECT_EQ(back.val, split.val);
  EXPECT_EQ(back.test, split.test);
  EXPECT_EQ(dir.entries(), 1u);
  FakeDataset renumbered = data;
  for (int& label : renumbered.labels) label = 1 - label;
  EXPECT_EQ(read_split(path, renumbered).train, split.train);
  EXPECT_ERROR(read_split(path, renumbered, true), "of class");
  EXPECT_EQ(read_split(path, data, true).train, split.train);
  // Where ids are row numbers, as in Galaxy10, any set of that size has them.
  struct Numbered : FakeDataset {
    using FakeDataset::FakeDataset;
    std::string id(int64_t i) const override { return std::to_string(i); }
  } numbered(50, 2), shuffled(50, 2);
  std::reverse(shuffled.labels.begin(), shuffled.labels.end());
  write_split(path, numbered, split);
  EXPECT_EQ(read_split(path, numbered).val, split.val);
  EXPECT_ERROR(read_split(path, shuffled), "of class");
  for (int& label : shuffled.labels) label = -1;
  EXPECT_EQ(read_split(path, shuffled).val, split.val) << "unlabelled";
  auto error = [&](const std::string& text) {
    test::write_text(path, text);
    return test::error_of([&] { read_split(path, data); });
  };
  auto has = [](const std::string& text, const char* part) {
    EXPECT_PRED_FORMAT2(::testing::IsSubstring, part, text);
  };
  has(error("id_str,row\n"), "needs the columns");
  has(error("id_str,row,split\ng50,50,val\n"), "split.csv:2: row \"50\" is not a row of fake");
  has(error("id_str,row,split\nx,0,val\n"), "the data have changed");
  has(error("id_str,row,split\ng0,0,val\ng0,0,val\n"), "split.csv:3: row 0 is listed twice");
  has(error("id_str,row,split\ng0,0,dev\n"), "split \"dev\" is not train, val or test");
}

TEST(DataSplit, BadShares) {
  FakeDataset data(50, 2);
  EXPECT_ERROR(make_split(data, {.val = .6, .test = .4}), "split: val and test");
  EXPECT_ERROR(make_split(data, {.val = -.1}), "split: val and test");
  data.labels.assign(50, -1);
  EXPECT_ERROR(make_split(data, {}), "no labelled images");
}

}  // namespace
}  // namespace gm
