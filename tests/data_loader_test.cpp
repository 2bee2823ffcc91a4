#include "data/loader.h"

#include <algorithm>
#include <barrier>
#include <filesystem>
#include <numeric>
#include <set>

#include "data/split.h"
#include "tests/data_test_util.h"

namespace gm {
namespace {
using test::FakeDataset;

std::vector<int64_t> iota(int64_t n) {
  std::vector<int64_t> rows(n);
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

LoaderConfig config(bool training, int workers = 2) {
  LoaderConfig c;
  c.batch = 8;
  c.transform = TransformConfig::gz(16);
  c.training = training;
  c.seed = 3;
  c.workers = workers;
  return c;
}

std::vector<HostBatch> epoch(Loader& loader, int64_t number, int64_t first = 0) {
  std::vector<HostBatch> batches;
  loader.start_epoch(number, first);
  for (HostBatch batch; loader.next(batch);) batches.push_back(batch);
  return batches;
}

void expect_same(const std::vector<HostBatch>& a, const std::vector<HostBatch>& b, size_t skip = 0) {
  ASSERT_EQ(a.size(), b.size() + skip);
  for (size_t i = 0; i < b.size(); ++i) {
    EXPECT_EQ(a[i + skip].count, b[i].count);
    EXPECT_EQ(a[i + skip].rows, b[i].rows);
    EXPECT_EQ(a[i + skip].labels, b[i].labels);
    EXPECT_EQ(a[i + skip].pixels, b[i].pixels);
  }
}

TEST(DataLoader, WorkersPrefetchAndCacheDoNotChangeTheBatches) {
  auto data = std::make_shared<FakeDataset>(61, 3);
  Loader one(data, iota(61), config(true, 1));
  auto expected = epoch(one, 5);
  ASSERT_EQ(expected.size(), 7u) << "the last partial batch is dropped";
  for (int workers : {2, 3, 8})
    for (int prefetch : {1, 4, 100})
      for (size_t cache : {size_t{0}, size_t{4000}, ImageCache::kDefaultBytes}) {
        LoaderConfig c = config(true, workers);
        c.prefetch = prefetch;
        c.cache_bytes = cache;
        Loader loader(data, iota(61), c);
        expect_same(expected, epoch(loader, 5));
        expect_same(expected, epoch(loader, 5));  // again, now from the cache
      }
}

TEST(DataLoader, PixelsAreTheTransformOfSeedEpochAndRow) {
  auto data = std::make_shared<FakeDataset>(24, 3);
  LoaderConfig c = config(true);
  Loader loader(data, iota(24), c);
  Transform transform(c.transform, true);
  std::vector<float> expected(16 * 16 * 3);
  for (const HostBatch& batch : epoch(loader, 6))
    for (int64_t i = 0; i < batch.count; ++i) {
      int64_t row = batch.rows[i];
      EXPECT_EQ(batch.labels[i], data->label(row));
      transform.apply(data->read(row), c.seed, 6, static_cast<uint32_t>(row), expected.data());
      EXPECT_TRUE(std::equal(expected.begin(), expected.end(), batch.pixels.begin() + i * 16 * 16 * 3))
          << row;
    }
}

TEST(DataLoader, TrainingWithoutAugmentationHasThePixelsOfEvaluation) {
  auto data = std::make_shared<FakeDataset>(24, 3);
  LoaderConfig c = config(true);
  c.augment = false;
  Loader loader(data, iota(24), c);
  const Transform evaluation(c.transform, false);
  std::vector<float> expected(16 * 16 * 3);
  for (const HostBatch& batch : epoch(loader, 6))
    for (int64_t i = 0; i < batch.count; ++i) {
      evaluation.apply(data->read(batch.rows[i]), 0, 0, 0, expected.data());
      EXPECT_TRUE(std::equal(expected.begin(), expected.end(), batch.pixels.begin() + i * 16 * 16 * 3));
    }
}

TEST(DataLoader, ResumesInMidEpochAndAfterAnAbandonedOne) {
  auto data = std::make_shared<FakeDataset>(61, 3);
  Loader loader(data, iota(61), config(true));
  auto expected = epoch(loader, 2);
  for (int64_t first : {1, 4, 7}) expect_same(expected, epoch(loader, 2, first), static_cast<size_t>(first));
  HostBatch batch;
  loader.start_epoch(9, 0);
  ASSERT_TRUE(loader.next(batch));
  expect_same(expected, epoch(loader, 2));
}

TEST(DataLoader, TrainingVisitsEverySampleOnceInANewOrderEachEpoch) {
  auto data = std::make_shared<FakeDataset>(64, 3);
  Loader loader(data, iota(64), config(true));
  std::set<std::vector<int64_t>> orders;
  for (int64_t e = 0; e < 4; ++e) {
    std::vector<int64_t> order;
    for (auto& batch : epoch(loader, e)) order.insert(order.end(), batch.rows.begin(), batch.rows.end());
    orders.insert(order);
    std::sort(order.begin(), order.end());
    EXPECT_EQ(order, iota(64));
  }
  EXPECT_EQ(orders.size(), 4u);
}

TEST(DataLoader, TrainingDropsTheLastIncompleteGroupOfBatches) {
  auto data = std::make_shared<FakeDataset>(61, 3);  // seven batches of 8
  Loader single(data, iota(61), config(true));
  LoaderConfig c = config(true);
  c.group = 3;
  Loader grouped(data, iota(61), c);
  EXPECT_EQ(grouped.batches(), 6);
  const std::vector<HostBatch> all = epoch(single, 2), whole = epoch(grouped, 2);
  expect_same({all.begin(), all.end() - 1}, whole);
  expect_same(whole, epoch(grouped, 2, 3), 3);
  c.group = 8;
  EXPECT_ERROR(Loader(data, iota(61), c), "fewer than one batch of 64");
  c.training = false;
  EXPECT_EQ(Loader(data, iota(61), c).batches(), 8) << "evaluation sees everything";
}

TEST(DataLoader, EvaluationKeepsTheOrderAndPadsWithZeros) {
  auto data = std::make_shared<FakeDataset>(30, 3);
  std::vector<int64_t> rows = {29, 3, 5, 7, 11, 13, 17, 19, 23, 2, 1};
  Loader loader(data, rows, config(false));
  EXPECT_EQ(loader.samples(), 11);
  EXPECT_EQ(loader.batches(), 2);
  auto batches = epoch(loader, 0);
  ASSERT_EQ(batches.size(), 2u);
  EXPECT_EQ(batches[0].rows, (std::vector<int64_t>{29, 3, 5, 7, 11, 13, 17, 19}));
  EXPECT_EQ(batches[0].labels[0], 29 % 3);
  EXPECT_EQ(batches[1].count, 3);
  ASSERT_EQ(batches[1].pixels.size(), 8u * 16 * 16 * 3);
  for (size_t i = 3 * 16 * 16 * 3; i < batches[1].pixels.size(); ++i) ASSERT_EQ(batches[1].pixels[i], 0);
  EXPECT_EQ(batches[0].pixels[2], 29) << "the image as it is: it has the network's size";
  expect_same(batches, epoch(loader, 1));
}

TEST(DataLoader, AnUnreadableImageEndsTheEpochWithItsName) {
  auto data = std::make_shared<FakeDataset>(40, 2);
  data->bad_row = 21;
  Loader loader(data, iota(40), config(false, 3));
  loader.start_epoch(0, 0);
  HostBatch batch;
  EXPECT_TRUE(loader.next(batch));
  EXPECT_TRUE(loader.next(batch));
  EXPECT_ERROR(loader.next(batch), "g21.jpg: truncated image");
  EXPECT_ERROR(loader.next(batch), "g21.jpg: truncated image");
  loader.start_epoch(0, 3);
  EXPECT_TRUE(loader.next(batch));
}

// No fault of the image: whoever skips bad ones must not skip it.
TEST(DataLoader, AMachineThatFailsEndsTheEpochThoughBadImagesAreSkipped) {
  for (const bool memory : {false, true}) {
    auto data = std::make_shared<FakeDataset>(40, 2);
    data->bad_row = 21;
    data->bad = [&] {
      if (memory) throw std::bad_alloc();
      throw MachineError("no room");
    };
    LoaderConfig c = config(false, 3);
    c.skip_bad = true;
    int skipped = 0;
    c.on_bad = [&](int64_t, const std::string&) { ++skipped; };
    Loader loader(data, iota(40), c);
    loader.start_epoch(0, 0);
    HostBatch batch;
    EXPECT_TRUE(loader.next(batch));
    EXPECT_TRUE(loader.next(batch));
    if (memory)
      EXPECT_THROW(loader.next(batch), std::bad_alloc);
    else
      EXPECT_THROW(loader.next(batch), MachineError);
    EXPECT_EQ(skipped, 0);
    data->bad_row = -1;
    loader.start_epoch(0, 2);
    EXPECT_TRUE(loader.next(batch));
  }
}

// All threads are in a decoder of the second batch when the first of them fails.
TEST(DataLoader, ErrorsOfAllThreadsAtOnceAreOneAndLeaveNoneBehind) {
  constexpr int kWorkers = 4;
  struct Failing : FakeDataset {
    Failing() : FakeDataset(40, 2) {}
    Image read(int64_t i) const override {
      if (i < 8 || !fails) return FakeDataset::read(i);
      if (i >= 8 + kWorkers) fail("a later image");
      all_here.arrive_and_wait();
      if (i == 8 + machine) throw MachineError("no room");
      fail("g" + std::to_string(i) + ": truncated image");
    }
    mutable std::barrier<> all_here{kWorkers};
    bool fails = true;
    int machine = 0;
  };
  for (const bool skip : {false, true})
    for (int machine = 0; machine < kWorkers; ++machine) {
      auto data = std::make_shared<Failing>();
      data->machine = machine;
      LoaderConfig c = config(false, kWorkers);
      c.skip_bad = skip;
      int skipped = 0;
      c.on_bad = [&](int64_t, const std::string&) { ++skipped; };
      Loader loader(data, iota(40), c);
      HostBatch batch;
      loader.start_epoch(0, 0);
      EXPECT_TRUE(loader.next(batch));
      EXPECT_THROW(loader.next(batch), MachineError);
      EXPECT_EQ(skipped, 0);
      loader.start_epoch(1, 5);  // waits for whoever still reads
      data->fails = false;
      size_t images = 0;
      for (const HostBatch& b : epoch(loader, 2)) images += static_cast<size_t>(b.count);
      EXPECT_EQ(images, 40u);
    }
}

// As when a signal ends the run.
TEST(DataLoader, WhatTheReportOfABadImageThrowsReachesTheCaller) {
  auto data = std::make_shared<FakeDataset>(40, 2);
  data->bad_row = 9;
  LoaderConfig c = config(false, 3);
  c.skip_bad = true;
  c.on_bad = [](int64_t, const std::string&) { fail("interrupted"); };
  Loader loader(data, iota(40), c);
  loader.start_epoch(0, 0);
  HostBatch batch;
  EXPECT_TRUE(loader.next(batch));
  EXPECT_ERROR(loader.next(batch), "interrupted");
  data->bad_row = -1;
  EXPECT_EQ(epoch(loader, 0).size(), 5u);
}

TEST(DataLoader, SkippedImagesAreReportedAndLeaveNoGap) {
  auto data = std::make_shared<FakeDataset>(20, 2);
  data->bad_row = 9;
  LoaderConfig c = config(false, 3);
  c.skip_bad = true;
  std::vector<int64_t> reported;
  c.on_bad = [&](int64_t row, const std::string& message) {
    reported.push_back(row);
    EXPECT_EQ(message, "g9.jpg: truncated image");
  };
  Loader loader(data, iota(20), c);
  auto batches = epoch(loader, 0);
  ASSERT_EQ(batches.size(), 3u);
  EXPECT_EQ(batches[1].count, 7);
  EXPECT_EQ(batches[1].rows, (std::vector<int64_t>{8, 10, 11, 12, 13, 14, 15, 0}));
  EXPECT_EQ(batches[1].labels, (std::vector<int32_t>{0, 0, 1, 0, 1, 0, 1, 0}));
  EXPECT_EQ(batches[1].pixels[16 * 16 * 3 + 2], 10);
  EXPECT_EQ(batches[1].pixels[7 * 16 * 16 * 3 + 2], 0);
  EXPECT_EQ(reported, std::vector<int64_t>{9});

  Loader only(data, {9}, c);  // a batch with nothing left is no batch
  EXPECT_TRUE(epoch(only, 0).empty());
}

TEST(DataLoader, CacheKeepsWhatFits) {
  auto data = std::make_shared<FakeDataset>(20, 2);
  ImageCache cache(data, 5 * 16 * 16 * 3 + 10);
  for (int64_t i = 0; i < 20; ++i) EXPECT_EQ(cache.read(i)->rgb[2], i);
  EXPECT_EQ(cache.bytes(), 5u * 16 * 16 * 3);
  EXPECT_EQ(cache.read(2).get(), cache.read(2).get());
  EXPECT_NE(cache.read(19).get(), cache.read(19).get());
  ImageCache exact(data, 2 * 16 * 16 * 3);
  for (int64_t i = 0; i < 2; ++i) EXPECT_EQ(exact.read(i).get(), exact.read(i).get());
}

TEST(DataLoader, MemoryIsForeseen) {
  auto data = std::make_shared<FakeDataset>(20, 2);
  const size_t image = 16 * 16 * 3;
  ImageCache cache(data), small(data, 5 * image + 10), none(data, 0);
  EXPECT_EQ(cache.most_bytes(20), 20 * image);
  EXPECT_EQ(cache.most_bytes(7), 7 * image);
  EXPECT_EQ(small.most_bytes(20), 5 * image + 10);
  EXPECT_EQ(none.most_bytes(20), 0u);
  EXPECT_EQ(cache.bytes(), 0u);
}

TEST(DataLoader, BadConfigurations) {
  auto data = std::make_shared<FakeDataset>(20, 2);
  auto error = [&](auto change, std::vector<int64_t> rows = iota(20)) {
    LoaderConfig c = config(true);
    change(c);
    return test::error_of([&] { Loader(data, rows, c); });
  };
  EXPECT_EQ(error([](auto&) {}), "");
  EXPECT_NE(error([](auto& c) { c.batch = 0; }), "");
  EXPECT_NE(error([](auto& c) { c.batch = 21; }).find("fewer than one batch of 21"), std::string::npos);
  EXPECT_NE(error([](auto& c) { c.prefetch = 0; }), "");
  EXPECT_NE(error([](auto& c) { c.skip_bad = true; }), "");
  EXPECT_NE(error([](auto&) {}, {}), "");
  EXPECT_NE(error([](auto&) {}, {20}), "");
  Loader loader(data, iota(20), config(true));
  data->labels[4] = -1;
  EXPECT_NE(error([](auto&) {}).find("g4 has no label to train on"), std::string::npos);
  HostBatch batch;
  EXPECT_ERROR(loader.next(batch), "before start_epoch");
  EXPECT_ERROR(loader.start_epoch(0, 3), "no batch 3");
}

TEST(DataLoader, RealImages) {
  const char* shared = std::getenv("GM_SHARED_DATA");
  if (!shared) GTEST_SKIP() << "GM_SHARED_DATA is not set";
  std::shared_ptr<Dataset> data = open_dataset((std::filesystem::path(shared) / "gz5").string());
  Split split = make_split(*data, {});
  split.train.resize(64);
  LoaderConfig c = config(true, 2);
  c.transform = TransformConfig::gz(64);
  Loader a(data, split.train, c);
  c.workers = 1;
  Loader b(data, split.train, c);
  auto batches = epoch(a, 0);
  expect_same(batches, epoch(b, 0));
  for (auto& batch : batches) {
    double mean = std::accumulate(batch.pixels.begin(), batch.pixels.end(), 0.0) / batch.pixels.size();
    EXPECT_GT(mean, 3);
    EXPECT_LT(mean, 120);
  }
}

}  // namespace
}  // namespace gm
