// Labels that are shares of votes: read from catalogs and HDF5 files, packed, carried by batches.
#include "data/soft_labels.h"

#include <numeric>

#include "data/dataset.h"
#include "data/hdf5_util.h"
#include "data/loader.h"
#include "data/pack.h"
#include "tests/data_test_util.h"

namespace gm {
namespace {
using test::FakeDataset;
using test::TempDir;
using Shares = std::vector<float>;

Shares shares_of(const Dataset& data, int64_t row) {
  const auto shares = data.soft_label(row);
  return {shares.begin(), shares.end()};
}

std::shared_ptr<Dataset> catalog(const TempDir& dir, const std::string& csv,
                                 const std::vector<std::string>& classes) {
  test::write_text(dir / "votes.csv", csv);
  return open_dataset(dir / "votes.csv", {.classes = classes});
}

const std::vector<std::string> kClasses{"smooth", "disk", "star"};

TEST(DataSoftLabels, ColumnsOfACatalog) {
  TempDir dir;
  const auto data = catalog(dir,
                            "id_str,star,smooth,disk,votes\n"
                            "a,0.125,0.5,0.375,40\n"
                            "b,0,0,1,7\n"
                            "c,0,0,0,0\n"
                            "d,,0.5,0.5,2\n"
                            "e,0.2,0.399,0.4,10\n",
                            kClasses);
  EXPECT_TRUE(data->soft());
  EXPECT_EQ(shares_of(*data, 0), (Shares{0.5f, 0.375f, 0.125f})) << "in the order of the classes";
  EXPECT_EQ(data->label(0), 0);
  EXPECT_EQ(shares_of(*data, 1), (Shares{0, 1, 0}));
  EXPECT_EQ(data->label(2), -1) << "nobody voted";
  EXPECT_TRUE(shares_of(*data, 2).empty());
  EXPECT_EQ(data->label(3), 0) << "the first of equals";
  EXPECT_EQ(data->label(4), 1);
  const Shares rounded = shares_of(*data, 4);
  EXPECT_NEAR(std::accumulate(rounded.begin(), rounded.end(), 0.0), 1, 1e-6) << "printed with few digits";
  EXPECT_NEAR(rounded[0], 0.399 / 0.999, 1e-6);
  EXPECT_FALSE(catalog(dir, "id_str,smooth,disk,star\na,1,0,0\nb,0,1,0\n", kClasses)->soft());
}

TEST(DataSoftLabels, WhatAreNoShares) {
  TempDir dir;
  auto open = [&](const std::string& row) {
    return catalog(dir, "id_str,smooth,disk,star\na,1,0,0\nb," + row + "\n", kClasses);
  };
  EXPECT_ERROR(open("0.5,0.1,0.2"), "votes.csv:3: the shares of the classes sum to 0.8 instead of 1");
  EXPECT_ERROR(open("0.7,0.7,0"), "votes.csv:3: the shares of the classes sum to 1.4 instead of 1");
  EXPECT_ERROR(open("12,3,0"), "votes.csv:3: smooth is 12, not a share from 0 to 1; counts of votes");
  EXPECT_ERROR(open("-0.5,0.5,1"), "votes.csv:3: smooth is -0.5, not a share");
  EXPECT_ERROR(open("many,0.5,0.5"), "votes.csv:3: smooth is \"many\", not a share");
  EXPECT_ERROR(open("1,0,1"), "votes.csv:3: both smooth and star are 1");
}

TEST(DataSoftLabels, APackedSetHoldsTheSameNumbers) {
  TempDir dir;
  FakeDataset data(40, 3, 20);
  for (int i = 0; i < 40; ++i) {
    const float third = static_cast<float>(i) / 120;
    Shares row{third, third, third};
    row[static_cast<size_t>(i % 3)] = 1 - 2 * third;
    data.soft_labels.insert(data.soft_labels.end(), row.begin(), row.end());
  }
  const Shares rounded{0.521f, 0.372f, 0.107f};  // divided by their sum once more, these would be others
  std::copy(rounded.begin(), rounded.end(), data.soft_labels.begin() + 9);
  data.labels[7] = -1;
  std::fill_n(data.soft_labels.begin() + 21, 3, 0.f);
  pack_hdf5(data, dir / "a.h5");
  const auto back = open_dataset(dir / "a.h5");
  EXPECT_TRUE(back->soft());
  for (int64_t i = 0; i < 40; ++i) {
    EXPECT_EQ(back->label(i), data.label(i));
    EXPECT_EQ(shares_of(*back, i), i == 7 ? Shares{} : shares_of(data, i)) << i;
  }
  // A model that numbers the classes otherwise, and has one more.
  const auto other = open_dataset(dir / "a.h5", {.classes = {"c2", "none", "c1", "c0"}});
  EXPECT_EQ(other->label(1), 2);
  EXPECT_EQ(shares_of(*other, 1), (Shares{data.soft_labels[5], 0, data.soft_labels[4], data.soft_labels[3]}));

  auto broken = [&](int64_t classes, const Shares& values) {
    std::filesystem::copy_file(dir / "a.h5", dir / "b.h5", std::filesystem::copy_options::overwrite_existing);
    {
      h5::Lock lock;
      h5::Handle file(H5Fopen((dir / "b.h5").c_str(), H5F_ACC_RDWR, H5P_DEFAULT), H5Fclose);
      H5Ldelete(file, "soft_labels", H5P_DEFAULT);
      const hsize_t shape[] = {40, hsize_t(classes)};
      h5::Handle space(H5Screate_simple(2, shape, nullptr), H5Sclose);
      h5::Handle table(
          H5Dcreate2(file, "soft_labels", H5T_IEEE_F32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
          H5Dclose);
      H5Dwrite(table, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
    }
    return open_dataset(dir / "b.h5");
  };
  EXPECT_ERROR(broken(2, Shares(80)), "b.h5: soft_labels has shape (40, 2), expected (40, 3)");
  Shares wrong = data.soft_labels;
  std::swap(wrong[3], wrong[4]);
  EXPECT_ERROR(broken(3, wrong), "b.h5: soft_labels[1]: the largest share is not that of ans, c1");
  Shares tie = data.soft_labels;
  tie[3] = tie[4] = 0.375f, tie[5] = 0.25f;
  EXPECT_EQ(broken(3, tie)->label(1), 0) << "the first of equals, as in a catalog";
  wrong = data.soft_labels;
  wrong[3] = 0.75f;
  EXPECT_ERROR(broken(3, wrong), "b.h5: soft_labels[1]: the shares of the classes sum to 1.7");
}

// Classes that are only numbered are met by number; one more of them than the model has may have no votes.
TEST(DataSoftLabels, AClassThatTheModelLacks) {
  struct Numbered : FakeDataset {
    Numbered() : FakeDataset(4, 3) {}
    const std::vector<std::string>& classes() const override { return names; }
    std::vector<std::string> names{"0", "1", "2"};
  } data;
  data.labels = {0, 1, 0, 1};
  data.soft_labels = {0.75f, 0.25f, 0, 0.25f, 0.75f, 0, 0.75f, 0.25f, 0, 0.25f, 0.75f, 0};
  TempDir dir;
  pack_hdf5(data, dir / "a.h5");
  EXPECT_EQ(shares_of(*open_dataset(dir / "a.h5", {.classes = {"x", "y"}}), 1), (Shares{0.25f, 0.75f}));
  data.soft_labels[3] = 0, data.soft_labels[5] = 0.25f;
  pack_hdf5(data, dir / "b.h5");
  EXPECT_ERROR(open_dataset(dir / "b.h5", {.classes = {"x", "y"}}),
               "b.h5: soft_labels[1]: class \"2\" is not one of the model's");
}

TEST(DataSoftLabels, BatchesCarryThem) {
  auto data = std::make_shared<FakeDataset>(11, 2);
  for (int i = 0; i < 11; ++i) {
    const float share = 0.5f + static_cast<float>(i) / 32;
    data->soft_labels.insert(data->soft_labels.end(), i % 2 ? std::initializer_list<float>{1 - share, share}
                                                            : std::initializer_list<float>{share, 1 - share});
  }
  data->bad_row = 1;
  std::vector<int64_t> rows(11);
  std::iota(rows.begin(), rows.end(), 0);
  LoaderConfig config{.batch = 4, .transform = TransformConfig::gz(16), .workers = 2, .skip_bad = true};
  Loader loader(data, rows, config);
  HostBatch batch;
  loader.start_epoch(0, 0);
  int64_t seen = 0;
  while (loader.next(batch)) {
    ASSERT_EQ(batch.soft_labels.size(), 8u);
    for (int64_t i = 0; i < batch.count; ++i, ++seen)
      for (int64_t k = 0; k < 2; ++k)
        EXPECT_EQ(batch.soft_labels[i * 2 + k], data->soft_labels[batch.rows[i] * 2 + k]);
    std::vector<float> targets(8);
    write_targets(batch, {{4, 2}, DType::f32}, targets.data());
    for (int64_t i = 0; i < 4; ++i)
      EXPECT_EQ(targets[i * 2], i < batch.count ? batch.soft_labels[i * 2] : -1) << "padding does not count";
  }
  EXPECT_EQ(seen, 10);
  // The same buffers behind a set without them.
  Loader plain(std::make_shared<FakeDataset>(4, 2), {0, 1, 2, 3}, config);
  plain.start_epoch(0, 0);
  EXPECT_TRUE(plain.next(batch));
  EXPECT_TRUE(batch.soft_labels.empty());
  std::vector<float> targets(8);
  EXPECT_ERROR(write_targets(batch, {{4, 2}, DType::f32}, targets.data()),
               "a batch of 4 rows has no targets");
}

}  // namespace
}  // namespace gm
