// Images in a device's memory: every byte in its place, whether copied by one thread or by several.
#include <gtest/gtest.h>

#include <cstring>

#include "data/loader.h"
#include "engine/image_pool.h"
#include "kernels/common/philox.h"

namespace gm::test {

namespace {

HostBatch batch_of(int64_t count, int side, int64_t first_row) {
  HostBatch batch;
  batch.count = count;
  for (int64_t i = 0; i < count; ++i) {
    PhiloxStream rng(3, RngUse::sample, static_cast<uint32_t>(first_row + i));
    std::vector<uint8_t> pixels(static_cast<size_t>(side) * side * 3);
    for (uint8_t& p : pixels) p = static_cast<uint8_t>(rng.next());
    batch.images.push_back(std::make_shared<const std::vector<uint8_t>>(std::move(pixels)));
    AugmentSample sample;
    sample.width = sample.height = side;
    batch.samples.push_back(sample);
    batch.rows.push_back(first_row + i);
  }
  return batch;
}

void expect_there(const ImagePool& pool, const HostBatch& batch) {
  const View memory = pool.view();
  for (int64_t i = 0; i < batch.count; ++i) {
    const auto& image = *batch.images[i];
    const int64_t at = batch.samples[i].offset;
    ASSERT_LE(at + static_cast<int64_t>(image.size()), memory.numel());
    EXPECT_EQ(std::memcmp(static_cast<const char*>(memory.data) + at, image.data(), image.size()), 0)
        << "row " << batch.rows[i];
  }
}

}  // namespace

TEST(EngineImagePool, EveryByteIsInItsPlace) {
  auto device = open_device("cpu", {.threads = 2});
  // 16 of them: far below and above what several threads copy; of 16 px five fill the room to the last byte.
  for (int side : {9, 16, 301}) {
    const size_t bytes = static_cast<size_t>(side) * side * 3;
    ImagePool pool(*device);
    pool.reserve(5 * bytes, 16 * bytes);  // five stay, the others pass through
    HostBatch first = batch_of(16, side, 0), second = batch_of(16, side, 100);
    pool.bring(0, first, first.samples);
    pool.bring(1, second, second.samples);
    expect_there(pool, first);
    expect_there(pool, second);
    for (int64_t row : {0, 4}) EXPECT_TRUE(pool.find(row)) << row;
    EXPECT_FALSE(pool.find(5));
    EXPECT_FALSE(pool.find(100));
  }
}

// The rows of a batch that are views of one image follow each other.
TEST(EngineImagePool, ViewsOfAnImagePassThroughOnce) {
  auto device = open_device("cpu", {.threads = 2});
  const size_t bytes = 16 * 16 * 3;
  ImagePool pool(*device);
  pool.reserve(0, 4 * bytes);
  HostBatch batch = batch_of(4, 16, 0);
  for (int64_t view : {1, 3}) batch.images[view] = batch.images[view - 1];
  for (int slot : {0, 1}) {
    pool.bring(slot, batch, batch.samples);
    expect_there(pool, batch);
    EXPECT_EQ(batch.samples[0].offset, batch.samples[1].offset);
    EXPECT_EQ(batch.samples[2].offset, batch.samples[3].offset);
  }
}

// Pictures of many sizes: a batch outgrows what the mean of a few says. The pool is in memory twice then.
TEST(EngineImagePool, AFullCardHasRoomToGrow) {
  struct Pictures : Dataset {
    int64_t size() const override { return 100000; }
    const std::vector<std::string>& classes() const override { return none; }
    int label(int64_t) const override { return -1; }
    std::string id(int64_t) const override { return ""; }
    Image read(int64_t) const override { return {}; }
    size_t image_bytes() const override { return 30 * 30 * 3; }
    const std::string& path() const override { return name; }
    std::vector<std::string> none;
    std::string name;
  };
  auto device = open_device("cpu", {.threads = 2});
  constexpr size_t kFree = 1 << 20;
  ImagePool pool(*device);
  reserve_images(pool, kFree, ImageCache(std::make_shared<Pictures>()), 100000, 16);
  const size_t before = pool.bytes();
  EXPECT_GT(before, kFree / 4) << "as many as the memory holds stay";
  for (int i = 0; i < 10; ++i) {
    HostBatch batch = batch_of(16, 30, 100 * i);
    pool.bring(i % 2, batch, batch.samples);
  }
  EXPECT_EQ(pool.bytes(), before) << "pictures of the mean's size";
  HostBatch large = batch_of(16, 45, 5000);  // more than twice as many bytes
  pool.bring(0, large, large.samples);
  expect_there(pool, large);
  EXPECT_GT(pool.bytes(), before);
  EXPECT_LE(before + pool.bytes(), kFree);
}

}  // namespace gm::test
