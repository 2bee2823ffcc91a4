#include "data/split.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numbers>
#include <numeric>
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

/// Groups by the distance of every pair.
std::vector<int64_t> pairwise_groups(const FakeDataset& data, double arcsec) {
  const double degree = std::numbers::pi / 180;
  std::vector<std::array<double, 3>> at;
  for (auto [ra, dec] : data.positions)
    at.push_back({std::cos(dec * degree) * std::cos(ra * degree),
                  std::cos(dec * degree) * std::sin(ra * degree), std::sin(dec * degree)});
  std::vector<int64_t> group(at.size());
  std::iota(group.begin(), group.end(), 0);
  for (size_t a = 0; a < at.size(); ++a)
    for (size_t b = 0; b < a; ++b)
      if (group[a] != group[b] &&
          std::hypot(at[a][0] - at[b][0], at[a][1] - at[b][1], at[a][2] - at[b][2]) <= arcsec / 3600 * degree)
        for (size_t i = 0, from = group[a], to = group[b]; i <= a; ++i)
          if (group[i] == static_cast<int64_t>(from)) group[i] = static_cast<int64_t>(to);
  std::map<int64_t, int64_t> number;
  for (int64_t& g : group) g = number.emplace(g, number.size()).first->second;
  return group;
}

TEST(DataSplit, SkyGroupsAreThoseOfEveryPair) {
  const double arcsec = 1.0 / 3600;
  for (uint32_t seed = 0; seed < 8; ++seed) {
    PhiloxStream rng(seed, RngUse::sample);
    FakeDataset data(900, 1);
    // Clusters of a few arcseconds, some of them dense, at the poles, across 0h and elsewhere; exact repeats.
    while (data.positions.size() < 900) {
      const double decs[] = {90, -90, 0, 61.5}, ras[] = {0, 123.4, 359.9999};
      const double dec = decs[rng.below(4)], ra = ras[rng.below(3)],
                   reach = (.3 + 12 * rng.uniform()) * arcsec;
      for (int i = rng.below(60); i >= 0 && data.positions.size() < 900; --i) {
        const double up = dec + reach * (rng.uniform() - .5), by = reach * (rng.uniform() - .5);
        const double y = std::clamp(up, -90., 90.);
        const double x = std::abs(dec) == 90 ? 360 * rng.uniform() : std::fmod(ra + by + 360, 360);
        data.positions.push_back({x, y});
        if (rng.below(4) == 0 && data.positions.size() < 900)
          data.positions.push_back(data.positions[rng.below(static_cast<uint32_t>(data.positions.size()))]);
      }
    }
    for (double radius : {.5, 1., 3.}) {
      const auto groups = sky_groups(data, radius);
      EXPECT_EQ(groups, pairwise_groups(data, radius)) << "seed " << seed << ", radius " << radius;
      EXPECT_GT(*std::max_element(groups.begin(), groups.end()), 1);
    }
  }
}

// Minutes where each is measured against each.
TEST(DataSplit, CrowdsOnTheSkyAreGroupedInNoTime) {
  const int64_t n = 200000;
  FakeDataset data(n, 1);
  data.positions.assign(n, {0, 0});
  EXPECT_EQ(sky_groups(data, 1), std::vector<int64_t>(n, 0)) << "one position";
  PhiloxStream rng(1, RngUse::sample);
  for (auto& p : data.positions) p = {rng.uniform() * 2 / 3600, rng.uniform() / 3600};
  EXPECT_EQ(sky_groups(data, 1), std::vector<int64_t>(n, 0)) << "many within two arcseconds";
  for (int64_t i = 0; i < n; ++i) data.positions[i] = {i % 2 * 1.5 / 3600, 0};
  std::vector<int64_t> two(n);
  for (int64_t i = 0; i < n; ++i) two[i] = i % 2;
  EXPECT_EQ(sky_groups(data, 1), two) << "two neighbours";
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

TEST(DataSplit, LargeObjectsDoNotOverfillAPart) {
  FakeDataset data(3000, 1);
  for (int i = 0; i < 3000; ++i) data.positions.push_back({i < 900 ? 0 : i * .01, 0});
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const Split split = make_split(data, {.val = .1, .test = .05, .seed = seed});
    EXPECT_EQ(split.val.size(), 300u);
    EXPECT_EQ(split.test.size(), 150u);
    EXPECT_TRUE(std::binary_search(split.train.begin(), split.train.end(), 0));
  }
  EXPECT_EQ(make_split(data, {.val = .5, .seed = 1}).val.size(), 1500u) << "where it fits, it may go";
  // Objects of three images may exceed a count by two.
  for (int i = 0; i < 3000; ++i) data.positions[i] = {i / 3 * .01, 0};
  EXPECT_EQ(make_split(data, {.val = .1 + 1. / 3000, .seed = 1}).val.size(), 303u);
  FakeDataset few(120, 1);
  for (int i = 0; i < 120; ++i) few.positions.push_back({i / 3 * .01, 0});
  EXPECT_EQ(make_split(few, {.val = 4. / 120, .seed = 1}).val.size(), 6u);
}

TEST(DataSplit, WhereEveryObjectIsTooLargeTheSmallestIsTaken) {
  FakeDataset data(0, 1);
  for (int object : {40, 8, 30, 12})
    for (int i = 0; i < object; ++i) data.labels.push_back(0), data.positions.push_back({object, 0});
  for (uint64_t seed = 0; seed < 10; ++seed) {
    const Split split = make_split(data, {.val = .02, .test = .05, .seed = seed});
    EXPECT_EQ(split.val.size(), 8u);
    EXPECT_EQ(split.test.size(), 12u);
    EXPECT_EQ(split.train.size(), 70u);
  }
  // Of two objects one is kept for training, and the test comes before the validation.
  data.labels.assign(52, 0);
  data.positions.erase(data.positions.begin() + 40, data.positions.begin() + 78);
  const Split two = make_split(data, {.val = .05, .test = .05, .seed = 1});
  EXPECT_EQ(two.train.size(), 40u);
  EXPECT_EQ(two.val.size(), 0u);
  EXPECT_EQ(two.test.size(), 12u);
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
