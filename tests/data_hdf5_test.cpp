#include <atomic>
#include <cmath>
#include <thread>

#include "data/hdf5_dataset.h"
#include "data/loader.h"
#include "tests/data_test_util.h"
#include "tests/hdf5_files.h"

namespace gm {
namespace {
using h5::Handle;
using test::create;
using test::pixels;
using test::put;
using test::put_names;
using test::TempDir;

TEST(DataHdf5, TwoClassesOfOneNameAreRefused) {
  TempDir dir;
  {
    Handle file = create(dir / "a.h5");
    put(file, "images", H5T_NATIVE_UINT8, {2, 6, 8, 3}, pixels(2));
    put(file, "ans", H5T_NATIVE_INT16, {2}, std::vector<int16_t>{0, 1});
    put_names(file, {"same", "same"});
  }
  EXPECT_ERROR(open_dataset(dir / "a.h5"), "a.h5: classes 0 and 1 are both called \"same\"");
}

TEST(DataHdf5, ReleasedFilesAreOpenedAnew) {
  TempDir dir;
  const std::vector<uint8_t> all = pixels(23);
  auto write = [&](hsize_t n, const std::vector<hsize_t>& chunk) {
    Handle file = create(dir / "a.h5");
    put(file, "images", H5T_NATIVE_UINT8, {n, 6, 8, 3}, pixels(n), chunk);
  };
  auto open_here = [&] { return test::open_files(dir.path()) + test::open_files("galaxy-pixels"); };
  for (const std::vector<hsize_t>& chunk :
       std::vector<std::vector<hsize_t>>{{1, 6, 8, 3}, {4, 6, 8, 3}, {12, 4, 5, 2}}) {
    write(23, chunk);
    const auto data = open_dataset(dir / "a.h5", {.labels = false});
    const auto image = [&](int64_t i) {
      return std::equal(all.begin() + i * 144, all.begin() + (i + 1) * 144, data->read(i).rgb.begin());
    };
    EXPECT_TRUE(image(3));
    EXPECT_EQ(open_here(), chunk[0] == 12 ? 2 : 1);
    data->release();
    EXPECT_EQ(open_here(), 0);
    EXPECT_TRUE(image(3));
    EXPECT_TRUE(image(20));
    std::atomic<int> wrong{0};  // a release while others read
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t)
      threads.emplace_back([&, t] {
        for (int k = 0; k < 50; ++k) t == 0 ? data->release() : void(wrong += !image((k * 5 + t) % 23));
      });
    for (std::thread& t : threads) t.join();
    EXPECT_EQ(wrong, 0);
    // No fault of an image.
    data->release();
    write(22, chunk);
    EXPECT_THROW(data->read(0), MachineError);
    EXPECT_ERROR(data->read(0), "a.h5: has been replaced since it was opened");
    std::filesystem::remove(dir / "a.h5");
    EXPECT_THROW(data->read(0), MachineError);
    EXPECT_EQ(test::open_files(dir.path()), 0);
  }
}

TEST(DataHdf5, EveryChunkShapeReadsTheSame) {
  TempDir dir;
  std::vector<uint8_t> all = pixels(23);
  std::vector<int16_t> labels(23);
  for (int i = 0; i < 23; ++i) labels[i] = static_cast<int16_t>(i % 3);
  // Contiguous; an image a chunk; a few (cached); many and cut across the image, as h5py makes them
  // (scratch).
  std::vector<std::vector<hsize_t>> chunks = {{}, {1, 6, 8, 3}, {4, 6, 8, 3}, {12, 4, 5, 2}, {23, 6, 8, 1}};
  for (auto& chunk : chunks) {
    {
      Handle file = create(dir / "a.h5");
      put(file, "images", H5T_NATIVE_UINT8, {23, 6, 8, 3}, all, chunk);
      put(file, "ans", H5T_NATIVE_INT16, {23}, labels);
    }
    auto data = open_dataset(dir / "a.h5");
    ASSERT_EQ(data->size(), 23);
    EXPECT_EQ(data->classes(), (std::vector<std::string>{"0", "1", "2"}));
    EXPECT_EQ(data->image_bytes(), 6u * 8 * 3);
    EXPECT_EQ(data->buffer_bytes(), !chunk.empty() && chunk[0] == 4 ? 23u * 6 * 8 * 3 : 0);
    std::vector<std::thread> threads;  // reads from several threads, each in its own order
    std::atomic<int> wrong{0};
    for (int t = 1; t <= 3; ++t)
      threads.emplace_back([&, t] {
        for (int k = 0; k < 46; ++k) {
          int64_t i = k * (t * 5) % 23;
          Image image = data->read(i);
          if (image.width != 8 || image.height != 6 ||
              !std::equal(image.rgb.begin(), image.rgb.end(), all.begin() + i * 6 * 8 * 3))
            ++wrong;
        }
      });
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(wrong, 0) << "chunk of " << (chunk.empty() ? 0 : chunk[0]);
  }
}

TEST(DataHdf5, NamesPositionsAndIds) {
  TempDir dir;
  {
    Handle file = create(dir / "a.h5");
    put(file, "images", H5T_NATIVE_UINT8, {2, 6, 8, 3}, pixels(2));
    put(file, "ans", H5T_NATIVE_UINT8, {2}, std::vector<uint8_t>{1, 0});
    put(file, "ra", H5T_NATIVE_DOUBLE, {2}, std::vector<double>{10, 20});
    put(file, "dec", H5T_NATIVE_DOUBLE, {2}, std::vector<double>{-1, NAN});
    put_names(h5::open_dataset(file, "images"), {"round", "spiral"});
  }
  auto data = open_dataset(dir / "a.h5");
  EXPECT_EQ(data->classes(), (std::vector<std::string>{"round", "spiral"}));
  EXPECT_EQ(data->label(0), 1);
  EXPECT_EQ(data->id(1), "1");
  double ra, dec;
  ASSERT_TRUE(data->sky(0, ra, dec));
  EXPECT_EQ(dec, -1);
  EXPECT_FALSE(data->sky(1, ra, dec));
  auto mine = open_dataset(dir / "a.h5", {{"spiral", "round"}});
  EXPECT_EQ(mine->label(0), 0) << "a model's order of the same names";
  // Names that differ are an error, not another numbering; where there are none on one side, numbers count.
  EXPECT_ERROR(open_dataset(dir / "a.h5", {{"spiral", "elliptical", "bar"}}),
               "a.h5: class \"round\" is not one of the model's: spiral, elliptical, bar");
  EXPECT_EQ(open_dataset(dir / "a.h5", {{"0", "1"}})->label(0), 1);
  {
    Handle file = create(dir / "b.h5");
    put(file, "images", H5T_NATIVE_UINT8, {2, 6, 8, 3}, pixels(2));
    put(file, "ans", H5T_NATIVE_UINT8, {2}, std::vector<uint8_t>{2, 0});
  }
  EXPECT_EQ(open_dataset(dir / "b.h5", {{"spiral", "round", "bar"}})->label(0), 2);
  EXPECT_ERROR(open_dataset(dir / "b.h5", {{"spiral", "round"}}), "b.h5: ans[0] = 2 is not a class (0..1)");
  {
    h5::Lock lock;
    const Handle file(H5Fopen((dir / "b.h5").c_str(), H5F_ACC_RDWR, H5P_DEFAULT), H5Fclose);
    put_names(h5::open_dataset(file, "images"), {"spiral", "round"});
  }
  EXPECT_ERROR(open_dataset(dir / "b.h5", {{"spiral", "round", "bar"}}),
               "b.h5: ans[0] = 2 is not a class (0..1)");
}

// T types: names that are numbers, which may be another class's index.
TEST(DataHdf5, NumbersAsNamesAreNames) {
  TempDir dir;
  {
    Handle file = create(dir / "a.h5");
    put(file, "images", H5T_NATIVE_UINT8, {3, 6, 8, 3}, pixels(3));
    put(file, "ans", H5T_NATIVE_UINT8, {3}, std::vector<uint8_t>{0, 1, 2});
    put_names(h5::open_dataset(file, "images"), {"0", "1", "5"});
  }
  auto data = open_dataset(dir / "a.h5", {{"-5", "-3", "0", "1", "5"}});
  for (int i = 0; i < 3; ++i) EXPECT_EQ(data->label(i), i + 2);
}

TEST(DataHdf5, IdentifiersMayBeIntegers) {
  TempDir dir;
  auto with = [&](hid_t type, auto ids) {
    Handle file = create(dir / "a.h5");
    put(file, "images", H5T_NATIVE_UINT8, {2, 6, 8, 3}, pixels(2));
    put(file, "ans", H5T_NATIVE_UINT8, {2}, std::vector<uint8_t>{1, 0});
    put(file, "id_str", type, {ids.size()}, ids);
  };
  with(H5T_NATIVE_INT64, std::vector<int64_t>{1237648720693755918, 7});
  EXPECT_EQ(open_dataset(dir / "a.h5")->id(0), "1237648720693755918");
  with(H5T_NATIVE_INT32, std::vector<int32_t>{-3, 7});
  EXPECT_EQ(open_dataset(dir / "a.h5")->id(0), "-3");
  with(H5T_NATIVE_UINT64, std::vector<uint64_t>{UINT64_MAX, 7});
  EXPECT_EQ(open_dataset(dir / "a.h5")->id(0), "18446744073709551615");
  with(H5T_NATIVE_DOUBLE, std::vector<double>{1, 2});
  EXPECT_ERROR(open_dataset(dir / "a.h5"), "a.h5: id_str is neither text nor integers");
  with(H5T_NATIVE_INT64, std::vector<int64_t>{1, 2, 3});
  EXPECT_ERROR(open_dataset(dir / "a.h5"), "a.h5: id_str has 3 rows, images has 2");
}

/// Strings of `width` bytes.
void put_ids(hid_t file, size_t width, H5T_str_t padding, const std::string& bytes) {
  Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type, width);
  H5Tset_strpad(type, padding);
  const hsize_t n = bytes.size() / width;
  Handle space(H5Screate_simple(1, &n, nullptr), H5Sclose);
  Handle ids(H5Dcreate2(file, "id_str", type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Dclose);
  ASSERT_GE(H5Dwrite(ids, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data()), 0);
}

TEST(DataHdf5, TextIsUtf8) {
  TempDir dir;
  auto write = [&](const std::string& ids, const std::vector<const char*>& names) {
    Handle file = create(dir / "a.h5");
    put(file, "images", H5T_NATIVE_UINT8, {2, 6, 8, 3}, pixels(2));
    put(file, "ans", H5T_NATIVE_INT16, {2}, std::vector<int16_t>{0, 1});
    put_ids(file, 5, H5T_STR_NULLPAD, ids);
    put_names(file, names);
  };
  write({"plaincaf\xC3\xA9", 10}, {"round", "caf\xC3\xA9"});
  EXPECT_EQ(open_dataset(dir / "a.h5")->id(1), "caf\xC3\xA9");
  write({"plaincaf\xE9\0", 10}, {"round", "spiral"});
  EXPECT_ERROR(open_dataset(dir / "a.h5"), "a.h5: id_str[1] is \"caf%E9\", which is not UTF-8 text");
  write({"plainother", 10}, {"round", "\xE9lliptique"});
  EXPECT_ERROR(open_dataset(dir / "a.h5"),
               "a.h5: class_names[1] is \"%E9lliptique\", which is not UTF-8 text");
}

TEST(DataHdf5, BlanksThatPadAreNoPartOfAnId) {
  TempDir dir;
  for (const H5T_str_t padding : {H5T_STR_SPACEPAD, H5T_STR_NULLPAD, H5T_STR_NULLTERM}) {
    {
      Handle file = create(dir / "a.h5");
      put(file, "images", H5T_NATIVE_UINT8, {2, 6, 8, 3}, pixels(2));
      put(file, "ans", H5T_NATIVE_INT16, {2}, std::vector<int16_t>{0, 1});
      put_ids(file, 4, padding, padding == H5T_STR_SPACEPAD ? "a b c   " : std::string("a \0\0c\0\0\0", 8));
    }
    EXPECT_EQ(open_dataset(dir / "a.h5")->id(0), padding == H5T_STR_SPACEPAD ? "a b" : "a ");
    EXPECT_EQ(open_dataset(dir / "a.h5")->id(1), "c");
  }
}

TEST(DataHdf5, TenUnnamedClassesAreGalaxy10) {
  TempDir dir;
  {
    Handle file = create(dir / "a.h5");
    put(file, "images", H5T_NATIVE_UINT8, {10, 6, 8, 3}, pixels(10));
    put(file, "ans", H5T_NATIVE_INT64, {10}, std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
  }
  EXPECT_EQ(open_dataset(dir / "a.h5")->classes(), galaxy10_classes());
  {
    Handle file = create(dir / "b.h5");
    put(file, "images", H5T_NATIVE_UINT8, {2, 6, 8, 3}, pixels(2));
    put(file, "ans", H5T_NATIVE_INT64, {2}, std::vector<int64_t>{3, 10});
  }
  EXPECT_EQ(open_dataset(dir / "b.h5")->classes().size(), 11u) << "eleven are others";
}

TEST(DataHdf5, LabelsMayBeWholeNumbersInFloatingPoint) {
  TempDir dir;
  {
    Handle file = create(dir / "a.h5");
    put(file, "images", H5T_NATIVE_UINT8, {3, 6, 8, 3}, pixels(3));
    put(file, "ans", H5T_NATIVE_DOUBLE, {3}, std::vector<double>{2, -1, 0});
  }
  const auto data = open_dataset(dir / "a.h5");
  EXPECT_EQ(data->classes().size(), 3u);
  EXPECT_EQ(data->label(0), 2);
  EXPECT_EQ(data->label(1), -1);
  EXPECT_EQ(data->label(2), 0);
}

}  // namespace
}  // namespace gm
