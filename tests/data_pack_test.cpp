#include "data/pack.h"

#include <sched.h>
#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "data/hdf5_dataset.h"
#include "data/parallel.h"
#include "data/synthetic.h"
#include "data/transform.h"
#include "engine/atomic_file.h"
#include "tests/data_test_util.h"
#include "tests/tools_test_util.h"

namespace gm {
namespace {
using test::FakeDataset;
using test::TempDir;

/// Lets no file grow beyond `bytes`: what a full disk looks like to the one who writes.
class SmallDisk {
 public:
  explicit SmallDisk(rlim_t bytes) {
    signal_ = ::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &old_);
    rlimit small = {bytes, old_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &small);
  }
  ~SmallDisk() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    ::signal(SIGXFSZ, signal_);
  }

 private:
  rlimit old_;
  void (*signal_)(int);
};

TEST(DataPack, RoundTripKeepsEverything) {
  TempDir dir;
  FakeDataset data(70, 3, 20);
  data.labels[5] = -1;
  data.positions.assign(70, {12.5, -30});
  data.positions[7].first = NAN;
  int64_t last = 0;
  pack_hdf5(data, dir / "a.h5", {.workers = 3, .progress = [&](int64_t done) { last = done; }});
  EXPECT_EQ(last, 70);
  EXPECT_EQ(dir.entries(), 1u);
  auto back = open_dataset(dir / "a.h5");
  ASSERT_EQ(back->size(), 70);
  EXPECT_EQ(back->classes(), data.classes());
  for (int64_t i = 0; i < 70; ++i) {
    EXPECT_EQ(back->label(i), data.label(i));
    EXPECT_EQ(back->id(i), data.id(i));
    EXPECT_EQ(back->read(i).rgb, data.read(i).rgb);
  }
  double ra, dec;
  ASSERT_TRUE(back->sky(6, ra, dec));
  EXPECT_EQ(ra, 12.5);
  EXPECT_FALSE(back->sky(7, ra, dec));
}

TEST(DataPack, IdsKeepTheirBlanks) {
  TempDir dir;
  struct Blank : FakeDataset {
    using FakeDataset::FakeDataset;
    std::string id(int64_t i) const override { return " g" + std::to_string(i) + std::string(i, ' '); }
  } data(4, 2);
  pack_hdf5(data, dir / "a.h5");
  const auto back = open_dataset(dir / "a.h5");
  for (int64_t i = 0; i < 4; ++i) EXPECT_EQ(back->id(i), data.id(i));
}

TEST(DataPack, FilesNeedNoScratchFile) {
  TempDir dir;
  const char* before = std::getenv("TMPDIR");
  const std::string old = before ? before : "";
  for (int side : {4, 20, 69, 120}) {
    const FakeDataset data(30, 2, side);
    pack_hdf5(data, dir / "a.h5");
    const auto back = open_dataset(dir / "a.h5");
    ::setenv("TMPDIR", (dir / "nowhere").c_str(), 1);
    for (int64_t i : {29, 0, 14}) EXPECT_EQ(back->read(i).rgb, data.read(i).rgb) << side << " px";
    before ? ::setenv("TMPDIR", old.c_str(), 1) : ::unsetenv("TMPDIR");
  }
}

TEST(DataPack, ResizesAndRefusesMixedSizes) {
  TempDir dir;
  write_image(dir / "a.png", test::gradient(20, 20));
  write_image(dir / "b.png", test::gradient(30, 20));
  auto folder = open_dataset(dir.path());
  EXPECT_ERROR(pack_hdf5(*folder, dir / "x.h5"), "b is 30x20 px but a is 20x20 px");
  EXPECT_EQ(dir.entries(), 2u) << "nothing is left of a failed pack";
  pack_hdf5(*folder, dir / "x.h5", {.size = 10});
  auto back = open_dataset(dir / "x.h5");
  EXPECT_TRUE(back->classes().empty());
  EXPECT_EQ(back->label(1), -1);
  EXPECT_EQ(back->read(1).rgb, resize_image(test::gradient(30, 20), 10).rgb);
}

TEST(DataPack, AnUnreadableImageOrFolderIsNamed) {
  TempDir dir;
  FakeDataset data(20, 2);
  data.bad_row = 13;
  EXPECT_ERROR(pack_hdf5(data, dir / "a.h5"), "g13.jpg: truncated image");
  EXPECT_ERROR(pack_hdf5(FakeDataset(2, 2), dir / "no/a.h5"), "cannot write: no folder");
  EXPECT_EQ(dir.entries(), 0u);
}

TEST(DataPack, FullDiskLeavesNothing) {
  TempDir dir;
  SyntheticDataset data(SyntheticSet::gz5, 40, 64, 1);
  // In a process of its own: after a failed write HDF5 can crash when it cleans up behind other files' ids.
  const auto fill_disk = [&] {
    SmallDisk disk(50000);
    EXPECT_ERROR(pack_hdf5(data, dir / "a.h5"), "a.h5: cannot write: File too large");
    EXPECT_ERROR(write_file_atomic(dir / "b.csv", std::string(60000, 'x')),
                 "b.csv: cannot write: File too large");
    std::_Exit(HasFailure());
  };
  EXPECT_EXIT(fill_disk(), testing::ExitedWithCode(0), "");
  EXPECT_EQ(dir.entries(), 0u);
  pack_hdf5(data, dir / "a.h5");
  EXPECT_EQ(open_dataset(dir / "a.h5")->size(), 40);
}

TEST(DataPack, FullDiskForTheScratchFileIsExplained) {
  TempDir dir;
  {
    h5::Lock lock;
    hsize_t shape[4] = {40, 32, 32, 3}, n = 40;  // one chunk for all images: needs the scratch file
    h5::Handle file(H5Fcreate((dir / "a.h5").c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
    h5::Handle layout(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
    H5Pset_chunk(layout, 4, shape);
    h5::Handle space(H5Screate_simple(4, shape, nullptr), H5Sclose),
        flat(H5Screate_simple(1, &n, nullptr), H5Sclose);
    h5::Handle images(H5Dcreate2(file, "images", H5T_STD_U8LE, space, H5P_DEFAULT, layout, H5P_DEFAULT),
                      H5Dclose);
    const std::vector<uint8_t> black(40 * 32 * 32 * 3);
    ASSERT_GE(H5Dwrite(images, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, black.data()), 0);
    h5::Handle ans(H5Dcreate2(file, "ans", H5T_STD_I32LE, flat, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                   H5Dclose);
  }
  auto data = open_dataset(dir / "a.h5");
  {
    SmallDisk disk(10000);
    EXPECT_ERROR(data->read(0), "no room to unpack 0.1 MiB in ");
  }
  EXPECT_EQ(data->read(39).width, 32) << "readable again once there is room";
}

TEST(DataSynthetic, SameSeedSamePixels) {
  for (auto set : {SyntheticSet::galaxy10, SyntheticSet::gz5}) {
    SyntheticDataset a(set, 20, 48, 7), b(set, 40, 48, 7), c(set, 20, 48, 8);
    for (int64_t i = 0; i < 20; ++i) {
      EXPECT_EQ(a.label(i), i % static_cast<int64_t>(a.classes().size()));
      EXPECT_EQ(a.read(i).rgb, b.read(i).rgb);
      EXPECT_NE(a.read(i).rgb, c.read(i).rgb);
    }
    EXPECT_NE(a.read(0).rgb, a.read(10).rgb);
  }
  EXPECT_ERROR(SyntheticDataset(SyntheticSet::gz5, 0, 64, 1), "count");
  EXPECT_ERROR(SyntheticDataset(SyntheticSet::gz5, 1, 4, 1), "size");
}

/// Second moments of the light near the centre: the axis ratio that the eye sees.
double axis_ratio(const Image& image) {
  double sum = 0, xx = 0, yy = 0, xy = 0, half = image.width / 2.0, reach = image.width / 4.0;
  for (int y = 0; y < image.height; ++y)
    for (int x = 0; x < image.width; ++x) {
      double dx = x + .5 - half, dy = y + .5 - half;
      if (std::hypot(dx, dy) > reach) continue;
      double light = std::max(0, image.rgb[(y * image.width + x) * 3 + 1] - 40);
      sum += light, xx += light * dx * dx, yy += light * dy * dy, xy += light * dx * dy;
    }
  double mean = (xx + yy) / 2, spread = std::hypot((xx - yy) / 2, xy);
  return sum > 0 ? std::sqrt((mean - spread) / (mean + spread)) : 1;
}

TEST(DataSynthetic, ClassesLookDifferent) {
  SyntheticDataset data(SyntheticSet::gz5, 200, 128, 3);
  double mean[5] = {};
  for (int64_t i = 0; i < data.size(); ++i) {
    Image image = data.read(i);
    mean[data.label(i)] += axis_ratio(image) / 40;
    uint8_t darkest = 255, brightest = 0;
    for (uint8_t v : image.rgb) darkest = std::min(darkest, v), brightest = std::max(brightest, v);
    EXPECT_LT(darkest, 30) << i;
    EXPECT_GT(brightest, 60) << i;
  }
  EXPECT_GT(mean[0], mean[1] + .1) << "round against in-between";
  EXPECT_GT(mean[1], mean[2] + .1) << "in-between against cigar";
  EXPECT_LT(mean[3], mean[1]) << "edge-on";
}

TEST(DataParallel, EveryIndexOnceAndTheFirstError) {
  std::vector<int> seen(1000, 0);
  parallel_for(1000, 4, [&](int64_t i) { ++seen[i]; });
  EXPECT_EQ(seen, std::vector<int>(1000, 1));
  parallel_for(0, 4, [&](int64_t) { FAIL(); });
  EXPECT_ERROR(parallel_for(100, 4,
                            [](int64_t i) {
                              if (i == 3) fail("three");
                            }),
               "three");
}

TEST(DataTool, CommandLine) {
  TempDir dir;
  auto run = [](const std::vector<std::string>& args) {
    const test::Ran r = test::run("gm_data", args);
    test::expect_success(r);
    return r.out;
  };
  run({"synth", "--classes", "gz5", "--count", "12", "--size", "32", "--format", "png", "--out", dir / "s"});
  auto folder = open_dataset(dir / "s");
  SyntheticDataset drawn(SyntheticSet::gz5, 12, 32, 0);
  ASSERT_EQ(folder->size(), 12);
  for (int64_t i = 0; i < 12; ++i) EXPECT_EQ(folder->read(i).rgb, drawn.read(i).rgb);
  run({"pack", dir / "s", "--out", dir / "s.h5"});
  EXPECT_EQ(open_dataset(dir / "s.h5")->classes(), gz5_classes());
  EXPECT_NE(run({"info", dir / "s.h5"}).find("images     12"), std::string::npos);
}

// In a process of its own, whose threads are then bound to one processor.
TEST(DataParallel, ThreadsAreAsManyAsProcessorsThatMayBeUsed) {
  const auto bound = [] {
    cpu_set_t all, one;
    if (sched_getaffinity(0, sizeof all, &all) != 0) std::_Exit(2);
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++cpu)
      if (CPU_ISSET(cpu, &all)) CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0) std::_Exit(3);
    std::_Exit(default_workers() == 1 ? 0 : 1);
  };
  EXPECT_EXIT(bound(), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace gm
