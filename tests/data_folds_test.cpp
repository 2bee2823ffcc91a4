#include "data/folds.h"

#include <algorithm>
#include <map>
#include <set>

#include "kernels/common/philox.h"
#include "tests/data_test_util.h"

namespace gm {
namespace {
using test::FakeDataset;

// Images by class and fold.
std::map<int, std::vector<int>> table_of(const Dataset& data, const std::vector<int>& folds, int count) {
  std::map<int, std::vector<int>> table;
  for (int64_t row = 0; row < data.size(); ++row)
    if (folds[row] >= 0) {
      auto& line = table[data.label(row)];
      line.resize(count);
      ++line[folds[row]];
    }
  return table;
}

TEST(DataFolds, EveryClassAndTheWholeDealtOutEvenly) {
  FakeDataset data(0, 3);
  for (int i = 0; i < 503; ++i) data.labels.push_back(i < 301 ? 0 : i < 484 ? 1 : i < 501 ? 2 : -1);
  const auto folds = make_folds(data, {.count = 5, .seed = 4});
  std::vector<int> total(5, 0);
  for (const auto& [label, images] : table_of(data, folds, 5)) {
    EXPECT_LE(*std::max_element(images.begin(), images.end()),
              *std::min_element(images.begin(), images.end()) + 1);
    for (int f = 0; f < 5; ++f) total[f] += images[f];
  }
  EXPECT_LE(*std::max_element(total.begin(), total.end()), *std::min_element(total.begin(), total.end()) + 1);
  EXPECT_EQ(folds[501], -1);
  EXPECT_EQ(folds[502], -1);

  std::set<int64_t> validated;
  for (int f = 0; f < 5; ++f) {
    const Split split = fold_split(folds, f);
    EXPECT_EQ(split.train.size() + split.val.size(), 501u);
    EXPECT_TRUE(split.test.empty());
    EXPECT_TRUE(std::is_sorted(split.train.begin(), split.train.end()));
    for (int64_t row : split.val) {
      EXPECT_TRUE(validated.insert(row).second) << "in two folds";
      EXPECT_FALSE(std::binary_search(split.train.begin(), split.train.end(), row));
    }
  }
  EXPECT_EQ(validated.size(), 501u);
}

TEST(DataFolds, SeededAndReproducible) {
  FakeDataset data(200, 2);
  EXPECT_EQ(make_folds(data, {.seed = 1}), make_folds(data, {.seed = 1}));
  EXPECT_NE(make_folds(data, {.seed = 1}), make_folds(data, {.seed = 2}));
}

TEST(DataFolds, OneSkyObjectStaysInOneFold) {
  FakeDataset data(600, 3);
  PhiloxStream rng(1, RngUse::sample);
  for (int i = 0; i < 600; ++i) data.positions.push_back({rng.below(200) * .01, rng.uniform() * 1e-5});
  const auto group = sky_groups(data, 1);
  const auto folds = make_folds(data, {.count = 4, .seed = 7});
  std::map<int64_t, int> fold_of;
  for (int64_t row = 0; row < 600; ++row)
    EXPECT_EQ(fold_of.emplace(group[row], folds[row]).first->second, folds[row]);
  EXPECT_GT(*std::max_element(fold_of.begin(), fold_of.end()), *fold_of.begin());
}

TEST(DataFolds, OthersEvenOutALargeObject) {
  FakeDataset data(3000, 1);
  for (int i = 0; i < 3000; ++i) data.positions.push_back({i < 900 ? 0 : i * .01, 0});
  for (uint64_t seed = 0; seed < 20; ++seed) {
    auto images = table_of(data, make_folds(data, {.count = 5, .seed = seed}), 5)[0];
    std::sort(images.begin(), images.end());
    EXPECT_EQ(images, (std::vector<int>{525, 525, 525, 525, 900}));
  }
}

TEST(DataFolds, AClassMustReachEveryFold) {
  FakeDataset data(0, 3);
  data.labels = {0, 0, 0, 0, 1, 1, 1, 2, 2, 2};
  EXPECT_EQ(make_folds(data, {.count = 3}).size(), 10u);
  EXPECT_ERROR(make_folds(data, {.count = 4}), "class 'c1' has 3 objects, fewer than the 4 folds");
  data.positions.assign(10, {0, 0});  // two pictures of one galaxy are one object
  for (int i = 0; i < 10; ++i) data.positions[i].first = i < 2 ? 0 : i;
  EXPECT_EQ(make_folds(data, {.count = 3}).size(), 10u);
  data.positions[6] = data.positions[5];
  EXPECT_ERROR(make_folds(data, {.count = 3}), "class 'c1' has 2 objects, fewer than the 3 folds");
  EXPECT_ERROR(make_folds(data, {.count = 1}), "at least 2");
}

TEST(DataFolds, Table) {
  FakeDataset data(0, 2);
  data.labels = {0, 1, -1, 0, 1};
  EXPECT_EQ(folds_csv(data, {1, 0, -1, 0, 1}),
            "id_str,row,label,fold\ng0,0,0,2\ng1,1,1,1\ng3,3,0,1\ng4,4,1,2\n");
}

}  // namespace
}  // namespace gm
