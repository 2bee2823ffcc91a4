// HDF5 files that lack something, or that this library cannot read.
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
using test::TempDir;

// Without positions duplicates of one object would be trained on and validated with.
TEST(DataHdf5, WhatIsThereAndCannotBeOpenedIsNotTakenForMissing) {
  for (const std::string lost : {"images", "ans", "id_str", "ra"}) {
    TempDir dir;
    {
      Handle file = create(dir / "a.h5");
      if (lost != "images") put(file, "images", H5T_NATIVE_UINT8, {2, 6, 8, 3}, pixels(2));
      if (lost != "ans") put(file, "ans", H5T_NATIVE_INT16, {2}, std::vector<int16_t>{0, 1});
      H5Lcreate_external("gone.h5", "/x", file, lost.c_str(), H5P_DEFAULT, H5P_DEFAULT);
    }
    EXPECT_ERROR(open_dataset(dir / "a.h5"), "a.h5: cannot open the dataset \"" + lost + "\": ");
    EXPECT_ERROR(open_dataset(dir / "a.h5"), "gone.h5");
  }
}

// HDF5 reads zeros in the place of what is gone: black images, of class 0.
TEST(DataHdf5, VirtualDatasetsWhoseFilesAreGoneAreRefused) {
  TempDir dir;
  { put(create(dir / "source.h5"), "x", H5T_NATIVE_UINT8, {2, 6, 8, 3}, pixels(2)); }
  {
    Handle file = create(dir / "a.h5");
    const hsize_t shape[] = {2, 6, 8, 3};
    const Handle space(H5Screate_simple(4, shape, nullptr), H5Sclose);
    const Handle layout(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
    H5Pset_virtual(layout, space, "source.h5", "x", space);
    const Handle images(H5Dcreate2(file, "images", H5T_NATIVE_UINT8, space, H5P_DEFAULT, layout, H5P_DEFAULT),
                        H5Dclose);
    put(file, "ans", H5T_NATIVE_INT16, {2}, std::vector<int16_t>{0, 1});
  }
  EXPECT_EQ(open_dataset(dir / "a.h5")->read(1).rgb[5], pixels(2)[6 * 8 * 3 + 5]);
  std::filesystem::rename(dir / "source.h5", dir / "moved.h5");
  EXPECT_ERROR(open_dataset(dir / "a.h5"),
               "a.h5: cannot open the dataset \"images\": it is kept in source.h5, which is not there");
}

/// Images of 6x8 px and their labels, of which only the first rows, lines and columns are ever written.
void put_part(hid_t file, hsize_t n, const std::vector<hsize_t>& chunk, const std::vector<hsize_t>& written) {
  put(file, "ans", H5T_NATIVE_INT16, {n}, std::vector<int16_t>(n, 0));
  const hsize_t all[] = {n, 6, 8, 3}, none[] = {0, 0, 0, 0};
  Handle layout(H5Pcreate(H5P_DATASET_CREATE), H5Pclose), space(H5Screate_simple(4, all, nullptr), H5Sclose);
  if (!chunk.empty()) H5Pset_chunk(layout, 4, chunk.data());
  Handle data(H5Dcreate2(file, "images", H5T_NATIVE_UINT8, space, H5P_DEFAULT, layout, H5P_DEFAULT),
              H5Dclose);
  if (written.empty()) return;
  Handle memory(H5Screate_simple(4, written.data(), nullptr), H5Sclose);
  H5Sselect_hyperslab(space, H5S_SELECT_SET, none, nullptr, written.data(), nullptr);
  ASSERT_GE(H5Dwrite(data, H5T_NATIVE_UINT8, memory, space, H5P_DEFAULT, pixels(written[0]).data()), 0);
}

// HDF5 reads what a program that ended early did not write as zeros: black galaxies.
TEST(DataHdf5, ImagesThatWereNeverWrittenCannotBeRead) {
  for (const hsize_t rows : {1, 2, 16}) {  // of a chunk: the three ways of reading
    TempDir dir;
    put_part(create(dir / "a.h5"), 40, {rows, 3, 8, 3}, {32, 6, 8, 3});
    const auto data = open_dataset(dir / "a.h5");
    EXPECT_EQ(data->read(31).rgb.front(), pixels(32)[31 * 6 * 8 * 3]);
    EXPECT_ERROR(data->read(32), "a.h5: cannot read image");
    EXPECT_ERROR(data->read(32), ": never written");
  }
}

TEST(DataHdf5, HalvesOfImagesCannotBeReadEither) {
  struct Part {
    std::vector<hsize_t> chunk, written;
  };
  for (const Part& part : {Part{{}, {}},
                           {{1, 3, 8, 3}, {4, 3, 8, 3}},
                           {{1, 6, 4, 3}, {4, 6, 4, 3}},
                           {{1, 6, 8, 1}, {4, 6, 8, 1}},
                           {{2, 3, 8, 3}, {4, 3, 8, 3}},
                           {{16, 3, 8, 3}, {20, 3, 8, 3}}}) {
    TempDir dir;
    put_part(create(dir / "a.h5"), 20, part.chunk, part.written);
    EXPECT_ERROR(open_dataset(dir / "a.h5")->read(1), ": never written");
  }
}

TEST(DataHdf5, BadFiles) {
  TempDir dir;
  std::string path = dir / "a.h5";
  auto error = [&] { return test::error_of([&] { open_dataset(path); }); };
  auto has = [](const std::string& text, const std::string& part) {
    EXPECT_PRED_FORMAT2(::testing::IsSubstring, part, text);
  };
  test::write_text(path, "not one");
  has(error(), "a.h5: not an HDF5 file");
  std::vector<int32_t> ans(3, 0);
  { put(create(path), "ans", H5T_NATIVE_INT32, {3}, ans); }
  has(error(), "no dataset \"images\"");
  { put(create(path), "images", H5T_NATIVE_UINT8, {3, 6, 8, 3}, pixels(3)); }
  has(error(), "no dataset \"ans\"");
  auto with = [&](std::vector<hsize_t> shape, std::vector<hsize_t> labels) {
    Handle file = create(path);
    put(file, "images", H5T_NATIVE_UINT8, shape, pixels(8));
    put(file, "ans", H5T_NATIVE_INT32, labels, std::vector<int32_t>(8, 0));
  };
  with({3, 6, 24}, {3});
  has(error(), "images has shape (3, 6, 24), expected (N, H, W, 3)");
  with({3, 6, 8, 1}, {3});
  has(error(), "images has shape (3, 6, 8, 1)");
  with({3, 1, 8, 3}, {3});
  has(error(), "sides must be 2..16384 px");
  with({3, 6, 8, 3}, {4});
  has(error(), "ans has shape (4), expected (3) like images");
  {
    Handle file = create(path);
    put(file, "images", H5T_NATIVE_FLOAT, {1, 2, 2, 3}, std::vector<float>(12));
    put(file, "ans", H5T_NATIVE_INT32, {1}, ans);
  }
  has(error(), "images is not of type uint8");
  {
    Handle file = create(path);
    put(file, "images", H5T_NATIVE_UINT8, {3, 6, 8, 3}, pixels(3));
    put(file, "ans", H5T_NATIVE_FLOAT, {3}, std::vector<float>{0, 0.5f, 1});
  }
  has(error(), "ans is not of an integer type, and ans[1] = 0.500000 is not a whole number");
  {
    Handle file = create(path);
    put(file, "images", H5T_NATIVE_UINT8, {3, 6, 8, 3}, pixels(3));
    put(file, "ans", H5T_NATIVE_INT32, {3}, std::vector<int32_t>{0, -7, 0});
  }
  has(error(), "ans[1] = -7 is not a class (0..0)");
  {
    Handle file = create(path);
    put(file, "images", H5T_NATIVE_UINT8, {3, 6, 8, 3}, pixels(3));
    put(file, "ans", H5T_NATIVE_INT32, {3}, std::vector<int32_t>{-1, -7, -1});
  }
  has(error(), "ans[1] = -7 is not a class, and no other ans is one");
}

TEST(DataHdf5, CompressionThatTheLibraryLacksIsNamedOnOpening) {
  TempDir dir;
  {
    Handle file = create(dir / "a.h5");
    const hsize_t shape[4] = {2, 6, 8, 3};
    Handle space(H5Screate_simple(4, shape, nullptr), H5Sclose),
        layout(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
    H5Pset_chunk(layout, 4, shape);
    // Optional, as h5py sets its lzf: a library without it stores the chunk as it is.
    ASSERT_GE(H5Pset_filter(layout, 32000, H5Z_FLAG_OPTIONAL, 0, nullptr), 0);
    Handle images(H5Dcreate2(file, "images", H5T_NATIVE_UINT8, space, H5P_DEFAULT, layout, H5P_DEFAULT),
                  H5Dclose);
    ASSERT_TRUE(images.ok());
    put(file, "ans", H5T_NATIVE_INT16, {2}, std::vector<int16_t>{0, 1});
  }
  EXPECT_ERROR(open_dataset(dir / "a.h5"), "a.h5: images is compressed with filter 32000");
}

TEST(DataHdf5, TruncatedFile) {
  TempDir dir;
  {
    Handle file = create(dir / "a.h5");
    put(file, "images", H5T_NATIVE_UINT8, {40, 6, 8, 3}, pixels(40), {1, 6, 8, 3});
    put(file, "ans", H5T_NATIVE_INT32, {40}, std::vector<int32_t>(40));
  }
  std::filesystem::resize_file(dir / "a.h5", std::filesystem::file_size(dir / "a.h5") / 2);
  EXPECT_ERROR(open_dataset(dir / "a.h5"), "a.h5: cannot open as HDF5: truncated file");
}

TEST(DataHdf5, ScratchWithoutAPlaceIsExplained) {
  TempDir dir;
  {
    Handle file = create(dir / "a.h5");
    put(file, "images", H5T_NATIVE_UINT8, {20, 6, 8, 3}, pixels(20), {20, 6, 8, 3});
    put(file, "ans", H5T_NATIVE_INT32, {20}, std::vector<int32_t>(20));
  }
  const char* before = std::getenv("TMPDIR");
  std::string old = before ? before : "";
  ::setenv("TMPDIR", (dir / "nowhere").c_str(), 1);
  EXPECT_ERROR(open_dataset(dir / "a.h5")->read(0), "cannot create a scratch file");
  // No fault of the images: those who skip bad ones must not skip these.
  int skipped = 0;
  LoaderConfig config{.batch = 4, .transform = {.size = 8}, .skip_bad = true};
  config.on_bad = [&](int64_t, const std::string&) { ++skipped; };
  Loader loader(open_dataset(dir / "a.h5"), {0, 1, 2, 3, 4, 5}, config);
  loader.start_epoch(0, 0);
  HostBatch batch;
  EXPECT_ERROR(loader.next(batch), "cannot create a scratch file");
  EXPECT_EQ(skipped, 0);
  before ? ::setenv("TMPDIR", old.c_str(), 1) : ::unsetenv("TMPDIR");
}

}  // namespace
}  // namespace gm
