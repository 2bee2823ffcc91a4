// Inference without waits, images prepared by the device, against the plain path on the CPU.
#include <numeric>

#include "tests/lagging_device.h"
#include "tests/require_cuda.h"
#include "tests/tools_test_util.h"
#include "tools/classify.h"

namespace gm {
namespace {

/// Five pictures at 40 px and some of other sizes; the last batch is not full.
class Pictures : public test::FakeDataset {
 public:
  Pictures() : FakeDataset(22, 5, 40) {}
  Image read(int64_t i) const override {
    if (i == bad_row) return FakeDataset::read(i);
    const int k = static_cast<int>(i);
    return test::gradient(k < 5 ? 40 : 24 + 9 * (k % 7), k < 5 ? 40 : 30 + 4 * (k % 3), 11 * k);
  }
};

class ToolsFeed : public testing::Test {
 protected:
  ToolsFeed() { test::write_tiny_model(dir / "model.safetensors"); }

  std::vector<Prediction> classify(Device& device, bool images, bool bf16 = false, int64_t bad_row = -1,
                                   const Passes& passes = {}) {
    auto data = std::make_shared<Pictures>();
    data->bad_row = bad_row;
    std::vector<int64_t> rows(static_cast<size_t>(data->size()));
    std::iota(rows.begin(), rows.end(), 0);
    const ModelFile model = read_model(dir / "model.safetensors");
    // Views on the device: of two images a step.
    Predictor predictor(device, model, images && passes.symmetries ? 16 : 4,
                        {.bf16 = bf16, .images = images});
    Classifier classifier(predictor, model.transform,
                          {.tool = "test", .doing = "", .done = "", .total = data->size(), .quiet = true},
                          passes);
    std::vector<Prediction> all;
    for (int set = 0; set < 2; ++set)  // a second data set uses the same rows for other images
      classifier.run(data, rows, [&](const std::vector<int64_t>& of, std::vector<Prediction>& batch) {
        EXPECT_GE(of.size(), batch.size());
        for (size_t i = 0; i < batch.size(); ++i) EXPECT_EQ(batch[i].id, data->id(of[i]));
        all.insert(all.end(), batch.begin(), batch.end());
      });
    EXPECT_EQ(classifier.reader().bad(), bad_row < 0 ? 0 : 2);
    if (images && passes.symmetries) {  // the largest two images, in either place, with room to grow
      EXPECT_LE(predictor.images()->bytes(), 2u * (2 * 78 * 38 * 3) * 5 / 4 + 1024);
    }
    return all;
  }
  static void expect_same(const std::vector<Prediction>& got, const std::vector<Prediction>& want,
                          float tolerance) {
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_EQ(got[i].id, want[i].id);
      ASSERT_EQ(got[i].logits.size(), want[i].logits.size());
      for (size_t c = 0; c < got[i].logits.size(); ++c)
        EXPECT_NEAR(got[i].logits[c], want[i].logits[c], tolerance) << got[i].id;
    }
  }

  test::TempDir dir;
};

TEST_F(ToolsFeed, LaggingDevicesPredictBitForBitLikeTheCpu) {
  auto cpu = open_device("cpu", {.threads = 2});
  for (bool bf16 : {false, true})
    for (int64_t bad_row : {-1, 6}) {
      const auto want = classify(*cpu, false, bf16, bad_row);
      ASSERT_EQ(want.size(), bad_row < 0 ? 44u : 42u);
      for (bool at_once : {false, true})
        for (bool capture : {true, false}) {
          test::LaggingDevice device("cpu", {.uploads_at_once = at_once, .capture = capture});
          expect_same(classify(device, true, bf16, bad_row), want, 0);
          EXPECT_EQ(device.replays > 0, capture);
        }
    }
}

// The view of a sample's pixels, and the pixels of its view: the same taps, added in another order.
TEST(SymmetricView, OfASampleIsThatOfItsPixels) {
  const Image image = test::gradient(50, 31, 90);
  constexpr int kSize = 16;
  const size_t floats = kSize * kSize * 3;
  AugmentDraw turned;
  turned.rotation = 0.3;
  turned.crop = 150;
  const Transform transform(TransformConfig::none(kSize), false);
  for (const AugmentSample& sample : {transform.sample(50, 31, 0, 0, 0), transform.sample(50, 31, turned)}) {
    std::vector<float> plain(floats), got(floats);
    augment_image(image, sample, kSize, plain.data());
    for (int view = 0; view < 8; ++view) {
      augment_image(image, symmetric_view(sample, kSize, view), kSize, got.data());
      const std::vector<float> want = symmetric_view(plain, kSize, view);
      for (size_t i = 0; i < floats; ++i) ASSERT_NEAR(got[i], want[i], 1e-3) << view << " " << i;
    }
  }
  const AugmentSample stretched = transform.sample(50, 31, 0, 0, 0);
  EXPECT_NE(stretched.taps_x, stretched.taps_y) << "this must not be square";
}

TEST_F(ToolsFeed, ViewsMadeByTheDeviceAreTheHosts) {
  auto cpu = open_device("cpu", {.threads = 2});
  const Passes views{.symmetries = true};
  for (int64_t bad_row : {-1, 6}) {
    const auto want = classify(*cpu, false, false, bad_row, views);
    test::LaggingDevice device("cpu", {});
    expect_same(classify(device, true, false, bad_row, views), want, 2e-6f);
  }
}

TEST_F(ToolsFeed, RowsOfABatch) {
  auto cpu = open_device("cpu");
  EXPECT_EQ(rows_of(*cpu, {}, 64, 100), 64);
  EXPECT_EQ(rows_of(*cpu, {.symmetries = true}, 64, 10), 10);
  struct CardInName : test::LaggingDevice {
    CardInName() : LaggingDevice("cpu", {}) {}
    Backend backend() const override { return Backend::cuda; }
  } card;
  EXPECT_EQ(rows_of(card, {}, 64, 10), 10);
  EXPECT_EQ(rows_of(card, {.symmetries = true}, 64, 100), 64);
  EXPECT_EQ(rows_of(card, {.symmetries = true}, 60, 3), 24);
  EXPECT_EQ(rows_of(card, {.symmetries = true}, 1, 1), 8);
  EXPECT_EQ(rows_of(card, {.symmetries = true, .dropout = 4}, 64, 10), 10);
}

TEST_F(ToolsFeed, CudaPredictsLikeTheCpu) {
  if (!test::require_cuda()) GTEST_SKIP() << "no GPU: " << no_cuda_reason();
  auto cpu = open_device("cpu"), card = open_device("cuda");
  expect_same(classify(*card, true), classify(*cpu, false), 1e-3f);
  expect_same(classify(*card, false), classify(*cpu, false), 1e-3f);
  const Passes views{.symmetries = true};
  expect_same(classify(*card, true, false, -1, views), classify(*cpu, false, false, -1, views), 1e-3f);
}

}  // namespace
}  // namespace gm
