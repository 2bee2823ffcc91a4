// Training without waits, images and augmentation on the device, against the plain loop on the CPU: the same
// bits, however far the device lags behind the host, wherever the images lie, captured or not.
#include <cmath>
#include <numeric>
#include <tuple>

#include "engine/device_feed.h"
#include "tests/lagging_device.h"
#include "tests/require_cuda.h"
#include "tests/small_training.h"
#include "tests/tools_test_util.h"

namespace gm {
namespace {

using test::kEpochs, test::kSteps, test::kValidation;
using test::LaggingDevice;
using test::Training;
using Options = test::TrainingOptions;

/// The plain loop on the CPU.
struct Reference {
  explicit Reference(const Options& options = {}) {
    auto device = open_device("cpu", {.threads = 2});
    Training run(*device, nullptr, dir / "plain", options);
    EXPECT_EQ(run.train(), Trainer::Outcome::finished);
  }
  std::string file() const { return dir / "plain/last.safetensors"; }
  std::string metrics() const { return test::comparable_metrics(dir / "plain/metrics.csv"); }
  test::TempDir dir;
};

TEST(EngineFeed, LaggingDevicesTrainBitForBitLikeTheCpu) {
  const Reference reference;
  test::TempDir dir;
  const size_t none = 0, some = 20000, all = 1 << 20;
  for (bool at_once : {false, true})
    for (bool capture : {true, false})
      for (size_t staying : {none, some, all}) {
        SCOPED_TRACE(std::string(at_once ? "uploads at once" : "late uploads") +
                     (capture ? ", captured" : ", not captured") + ", room for " + std::to_string(staying));
        LaggingDevice device("cpu", {.uploads_at_once = at_once, .capture = capture});
        ImagePool pool(device);
        pool.reserve(staying, 0);
        Training run(device, &pool, dir / "run");
        EXPECT_EQ(run.train(), Trainer::Outcome::finished);
        EXPECT_EQ(test::comparable_metrics(dir / "run/metrics.csv"), reference.metrics());
        test::expect_same_tensors(dir / "run/last.safetensors", reference.file());
        EXPECT_EQ(run.trainer->feed().captured(), capture);
        EXPECT_EQ(run.trainer->feed().capture_error(), capture ? "" : "told to refuse");
        const int64_t steps = kEpochs * (kSteps + kValidation);
        EXPECT_EQ(device.replays, capture ? steps - 4 : 0) << "all but each slot's first";
        if (capture && staying == all) {
          EXPECT_EQ(device.captures, 4) << "two networks, two slots";
        }
        if (capture && staying == none) {
          EXPECT_GT(device.captures, 4) << "again where images have moved";
        }
        // Every image is sent once, in as many pieces as there are batches.
        const int64_t sent = staying == all ? kSteps + kValidation : steps;
        if (staying != some) {
          EXPECT_EQ(device.uploads, steps + sent);
        }
      }
}

TEST(EngineFeed, Bf16InputEqualsTheCpusToo) {
  const Options options{.dtype = DType::bf16};
  const Reference reference(options);
  test::TempDir dir;
  LaggingDevice device("cpu", {});
  ImagePool pool(device);
  Training run(device, &pool, dir / "run", options);
  EXPECT_EQ(run.train(), Trainer::Outcome::finished);
  EXPECT_EQ(test::comparable_metrics(dir / "run/metrics.csv"), reference.metrics());
  test::expect_same_tensors(dir / "run/last.safetensors", reference.file());
}

TEST(EngineFeed, InterruptedInMidEpochAndResumedAsUnbroken) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    SCOPED_TRACE(dtype_name(dtype));
    const Options options{.dtype = dtype};
    const Reference reference(options);
    test::TempDir dir;
    {
      LaggingDevice device("cpu", {});
      ImagePool pool(device);
      pool.reserve(1 << 20, 0);
      Training run(device, &pool, dir / "run", options);
      EXPECT_EQ(run.train(8), Trainer::Outcome::interrupted);
      EXPECT_EQ(read_safetensors(dir / "run/last.safetensors").metadata.at("step"), "8");
    }
    LaggingDevice device("cpu", {});
    ImagePool pool(device);
    Training run(device, &pool, dir / "run", options);
    run.trainer->resume();
    EXPECT_EQ(run.train(), Trainer::Outcome::finished);
    EXPECT_EQ(test::comparable_metrics(dir / "run/metrics.csv"), reference.metrics());
    test::expect_same_tensors(dir / "run/last.safetensors", reference.file());
  }
}

TEST(EngineFeed, DamagedCheckpointsAreRefusedAndChangeNothing) {
  const Reference reference;
  test::TempDir dir;
  auto device = open_device("cpu", {.threads = 2});
  Training run(*device, nullptr, dir / "run");
  const TensorFile before = test::store_weights(run.table, *run.weights),
                   good = read_safetensors(reference.file());
  const auto refused = [&](const TensorFile& bad, const std::string& part) {
    write_safetensors(dir / "run/last.safetensors", bad);
    EXPECT_ERROR(run.trainer->resume(), dir / "run/last.safetensors" + ": " + part);
  };
  for (const char* key : {"step", "epoch", "batch", "loss_sum", "correct", "samples", "best_loss",
                          "best_accuracy", "best_epoch", "epochs_without_gain"}) {
    TensorFile bad = good;
    bad.metadata[key] = "1,5";
    refused(bad, "not a full checkpoint: '" + std::string(key) + "' is '1,5', not a");
    bad.metadata.erase(key);
    refused(bad, "not a full checkpoint: '" + std::string(key) + "' is missing");
  }
  TensorFile bad = good;
  bad.metadata["seed"] = "8";
  refused(bad, "was trained with --seed 8, not 9");
  for (const char* name : {"optimizer/moment1", "optimizer/moment2", "optimizer/parameters"}) {
    bad = good;
    bad.tensors[name] = StoredTensor::of(Shape{2}, {1, 2});
    refused(bad, "'" + std::string(name) + "' is of another model");
  }
  bad = good;
  bad.tensors["stem_conv/kernel"] = StoredTensor::of(Shape{2}, {1, 2});
  refused(bad, "tensor 'stem_conv/kernel' has shape (2)");
  const TensorFile after = test::store_weights(run.table, *run.weights);
  for (const auto& [name, tensor] : before.tensors) EXPECT_EQ(after.at(name).bytes, tensor.bytes) << name;
  EXPECT_EQ(run.trainer->step(), 0);
}

// Three batches an update, mixed targets: three kinds of steps, each a graph of its own. A run that is told
// to stop between two of them first finishes the update.
TEST(EngineFeed, AccumulatedGradientsOfMixedImagesTrainBitForBitLikeTheCpu) {
  const Options options{.accumulate = 3, .mixup = 0.4, .cutmix = 1};
  const Reference reference(options);
  test::TempDir dir;
  // The first results of the second epoch are there behind step 9.
  for (const auto& [capture, told, stopped] : {std::tuple{true, 9, "9"}, {false, 10, "12"}}) {
    LaggingDevice device("cpu", {.capture = capture});
    ImagePool pool(device);
    pool.reserve(1 << 20, 0);
    {
      Training run(device, &pool, dir / "run", options);
      EXPECT_EQ(run.train(told), Trainer::Outcome::interrupted);
      EXPECT_EQ(read_safetensors(dir / "run/last.safetensors").metadata.at("step"), stopped);
    }
    Training run(device, &pool, dir / "run", options);
    run.trainer->resume();
    EXPECT_EQ(run.train(), Trainer::Outcome::finished);
    EXPECT_EQ(run.trainer->feed().captured(), capture);
    EXPECT_EQ(test::comparable_metrics(dir / "run/metrics.csv"), reference.metrics());
    test::expect_same_tensors(dir / "run/last.safetensors", reference.file());
    std::filesystem::remove_all(dir / "run");
  }
}

// Two validation images in a batch of four: the rows past them must not count.
TEST(EngineFeed, SoftLabelsTrainBitForBitLikeTheCpu) {
  std::string before;
  for (const double mixup : {0., 0.4}) {
    const Options options{.mixup = mixup, .soft = true};
    const Reference reference(options);
    test::TempDir dir;
    LaggingDevice device("cpu", {.capture = true});
    ImagePool pool(device);
    pool.reserve(1 << 20, 0);
    Training run(device, &pool, dir / "run", options);
    EXPECT_EQ(run.train(), Trainer::Outcome::finished);
    EXPECT_EQ(test::comparable_metrics(dir / "run/metrics.csv"), reference.metrics());
    test::expect_same_tensors(dir / "run/last.safetensors", reference.file());
    EXPECT_NE(reference.metrics(), Reference({.mixup = mixup}).metrics());
    EXPECT_NE(reference.metrics(), before);
    before = reference.metrics();
  }
}

TEST(EngineFeed, ALossThatIsNotFiniteEndsTheRunBeforeItIsSaved) {
  test::TempDir dir;
  LaggingDevice device("cpu", {});
  ImagePool pool(device);
  Training run(device, &pool, dir / "run", {.lr = 1e30});
  try {
    run.train();
    ADD_FAILURE() << "trained with a learning rate of 1e30";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("the loss became"), std::string::npos) << e.what();
  }
  for (const auto& [name, tensor] : read_safetensors(dir / "run/last.safetensors").tensors)
    for (float v : tensor.floats()) ASSERT_TRUE(std::isfinite(v)) << name;
}

// An update can ruin the weights behind a loss that was still finite: nothing of them replaces a checkpoint.
TEST(EngineFeed, WeightsThatAreNotFiniteAreNotSaved) {
  const Reference reference;
  test::TempDir dir;
  auto device = open_device("cpu", {.threads = 2});
  Training run(*device, nullptr, dir / "run");
  std::filesystem::copy(reference.file(), dir / "run/last.safetensors");
  for (const Parameter& p : run.table)
    if (p.name == "stem_conv/kernel")
      run.weights->upload(p, std::vector<float>(static_cast<size_t>(p.shape.numel()), INFINITY));
  EXPECT_ERROR(run.train(), "not finite after step 0");
  test::expect_same_tensors(dir / "run/last.safetensors", reference.file());
}

TEST(EngineFeed, UnreadableImagesLeaveSamplesAndImagesInStep) {
  auto data = std::make_shared<test::FakeDataset>(11, 3, 20);
  data->bad_row = 3;
  std::vector<int64_t> rows(11);
  std::iota(rows.begin(), rows.end(), 0);
  auto device = open_device("cpu");
  const ImagePool pool(*device);
  LoaderConfig config{.batch = 4, .transform = TransformConfig::gz(16), .device_images = &pool};
  config.skip_bad = true;
  Loader loader(data, rows, config);
  loader.start_epoch(0, 0);
  HostBatch batch;
  std::vector<int64_t> seen;
  while (loader.next(batch))
    for (int64_t i = 0; i < batch.count; ++i) {
      seen.push_back(batch.rows[i]);
      ASSERT_TRUE(batch.images[i]);
      EXPECT_EQ((*batch.images[i])[2], batch.rows[i]) << "FakeDataset writes the row into blue";
      EXPECT_EQ(batch.samples[i].width, 20);
    }
  EXPECT_EQ(seen, (std::vector<int64_t>{0, 1, 2, 4, 5, 6, 7, 8, 9, 10}));
}

// A card adds in another order: close, not equal; but the same bits twice, whatever stays on it and whether
// the step is a graph.
TEST(EngineFeed, CudaTrainsLikeTheCpuInOneGraph) {
  if (!test::require_cuda()) GTEST_SKIP() << "no GPU: " << no_cuda_reason();
  const Reference reference;
  test::TempDir dir;
  std::string first;
  for (size_t staying : {size_t{1} << 20, size_t{20000}, size_t{0}}) {
    auto device = open_device("cuda");
    ImagePool pool(*device);
    pool.reserve(staying, 0);
    const std::string folder = dir / std::to_string(staying);
    Training run(*device, &pool, folder);
    EXPECT_EQ(run.train(), Trainer::Outcome::finished);
    EXPECT_TRUE(run.trainer->feed().captured()) << run.trainer->feed().capture_error();
    if (first.empty()) first = folder;
    test::expect_same_tensors(folder + "/last.safetensors", first + "/last.safetensors");
  }
  const CsvTable got(first + "/metrics.csv"), want(reference.dir / "plain/metrics.csv");
  for (int64_t r = 0; r < kEpochs; ++r)
    for (const char* c : {"train_loss", "val_loss"}) {
      const double a = std::stod(got.cell(r, got.column(c))), b = std::stod(want.cell(r, want.column(c)));
      EXPECT_NEAR(a, b, 1e-3 * b) << c << " of epoch " << r + 1;
    }
}

}  // namespace
}  // namespace gm
