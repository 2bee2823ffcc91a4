#include <atomic>
#include <numeric>

#include "data/joined_dataset.h"
#include "data/loader.h"
#include "tests/data_test_util.h"

namespace gm {
namespace {
using test::FakeDataset;

TEST(DataJoined, RowsAreThoseOfTheSetsInTheirOrder) {
  auto a = std::make_shared<FakeDataset>(3, 2), b = std::make_shared<FakeDataset>(1, 5),
       c = std::make_shared<FakeDataset>(4, 3, 20);
  b->positions = {{12.5, -3}};
  c->bad_row = 1;
  const JoinedDataset joined({a, b, std::make_shared<FakeDataset>(0, 1), c});
  ASSERT_EQ(joined.size(), 8);
  const std::vector<std::pair<const FakeDataset*, int64_t>> rows{{a.get(), 0}, {a.get(), 1}, {a.get(), 2},
                                                                 {b.get(), 0}, {c.get(), 0}, {c.get(), 1},
                                                                 {c.get(), 2}, {c.get(), 3}};
  for (int64_t i = 0; i < 8; ++i) {
    const auto [set, row] = rows[static_cast<size_t>(i)];
    double ra = 0, dec = 0;
    EXPECT_EQ(joined.id(i), set->id(row));
    EXPECT_EQ(joined.label(i), -1);
    EXPECT_EQ(joined.sky(i, ra, dec), i == 3);
    EXPECT_EQ(ra, i == 3 ? 12.5 : 0);
    if (i == 5)
      EXPECT_ERROR(joined.read(i), "g1.jpg: truncated image");
    else
      EXPECT_EQ(joined.read(i).rgb, set->read(row).rgb);
  }
  EXPECT_TRUE(joined.classes().empty());
  EXPECT_ERROR(JoinedDataset({}), "no sets to join");
}

TEST(DataJoined, FilesAndPathsAreThoseOfTheSets) {
  test::TempDir dir;
  std::vector<std::shared_ptr<const Dataset>> sets;
  for (const char* name : {"a.png", "b.png"}) {
    write_image(dir / name, test::gradient(8, 8));
    sets.push_back(open_dataset(dir / name));
  }
  const JoinedDataset joined(sets);
  EXPECT_EQ(joined.file(1), dir / "b.png");
  EXPECT_EQ(joined.path_of(1), dir / "b.png");
  EXPECT_EQ(joined.path(), dir / "a.png and 1 more");
}

TEST(DataJoined, IdsOfSeveralImagesAreCounted) {
  auto a = std::make_shared<FakeDataset>(4, 1), b = std::make_shared<FakeDataset>(2, 1);
  EXPECT_EQ(shared_ids(*a).rows, 0);
  const SharedIds twice = shared_ids(JoinedDataset({b, a}));  // g0 g1 and g0 g1 g2 g3
  EXPECT_EQ(twice.rows, 2);
  EXPECT_EQ(twice.first, 2);
  EXPECT_EQ(twice.earlier, 0);
  const SharedIds thrice = shared_ids(JoinedDataset({b, a, a}));
  EXPECT_EQ(thrice.rows, 6);
  EXPECT_EQ(thrice.first, 2);
}

/// Counts its releases.
struct Counting : FakeDataset {
  using FakeDataset::FakeDataset;
  void release() const override { ++releases; }
  mutable std::atomic<int> releases = 0;
};

TEST(DataJoined, ASetThatHasBeenReadIsReleased) {
  auto a = std::make_shared<Counting>(3, 1), b = std::make_shared<Counting>(2, 1);
  a->bad_row = 2;
  const JoinedDataset joined({a, b});
  for (int epoch = 1; epoch <= 2; ++epoch) {
    joined.read(0);
    joined.read(1);
    joined.read(3);
    EXPECT_EQ(a->releases, epoch - 1);
    EXPECT_ERROR(joined.read(2), "truncated");
    EXPECT_EQ(a->releases, epoch);
    EXPECT_EQ(b->releases, epoch - 1);
    joined.read(4);
    EXPECT_EQ(b->releases, epoch);
  }
}

TEST(DataJoined, BatchesReachOverTheSets) {
  std::vector<std::shared_ptr<const Dataset>> sets;
  for (int n = 0; n < 21; ++n) sets.push_back(std::make_shared<FakeDataset>(1, 1));
  LoaderConfig config{.batch = 8, .transform = TransformConfig::none(16)};
  std::vector<int64_t> rows(21);
  std::iota(rows.begin(), rows.end(), 0);
  Loader loader(std::make_shared<JoinedDataset>(sets), rows, config);
  loader.start_epoch(0, 0);
  HostBatch batch;
  std::vector<int64_t> counts;
  while (loader.next(batch)) counts.push_back(batch.count);
  EXPECT_EQ(counts, (std::vector<int64_t>{8, 8, 5}));
}

struct Sized : FakeDataset {
  Sized(size_t image, size_t buffer) : FakeDataset(1, 1), image(image), buffer(buffer) {}
  size_t image_bytes() const override { return image; }
  size_t buffer_bytes() const override { return buffer; }
  size_t image, buffer;
};

TEST(DataJoined, MemoryIsThatOfAllSets) {
  auto joined = [](size_t first, size_t second) {
    return JoinedDataset({std::make_shared<Sized>(first, 3), std::make_shared<Sized>(second, 4)});
  };
  EXPECT_EQ(joined(12, 12).image_bytes(), 12u);
  EXPECT_EQ(joined(12, 27).image_bytes(), 0u) << "not known where they differ";
  EXPECT_EQ(joined(12, 27).buffer_bytes(), 7u);
}

TEST(DataJoined, AllSetsAreReleasedTogether) {
  auto a = std::make_shared<Counting>(3, 1), b = std::make_shared<Counting>(2, 1);
  JoinedDataset({a, b}).release();
  EXPECT_EQ(a->releases, 1);
  EXPECT_EQ(b->releases, 1);
}

}  // namespace
}  // namespace gm
