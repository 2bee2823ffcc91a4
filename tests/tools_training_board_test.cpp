// What a training run leaves for TensorBoard, read back by TensorBoard's own package.
#include <cstdlib>
#include <limits>

#include "data/split.h"
#include "tests/python_test_util.h"
#include "tests/tools_test_util.h"
#include "tools/pictures/augmented_picture.h"
#include "tools/pictures/tensorboard.h"
#include "tools/training_board.h"

namespace gm {
namespace {

using test::expect_success;

TEST(Histogram, CountsFiniteValuesBetweenTheLeastAndTheGreatest) {
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> values{0, 30, 0.5f, 1, 29.5f, 15, 15.25f, inf, -inf, std::nanf("")};
  const Histogram h = histogram_of(values);
  ASSERT_EQ(h.counts.size(), 30u);
  for (int i = 0; i < 30; ++i) {
    EXPECT_EQ(h.right_edges[i], i + 1);
    EXPECT_EQ(h.counts[i], i == 0 || i == 15 || i == 29 ? 2 : i == 1 ? 1 : 0) << i;
  }
  EXPECT_EQ(h.sum, 91.25);
  EXPECT_EQ(h.sum_squares, 900 + 0.25 + 1 + 870.25 + 225 + 232.5625);

  const Histogram same = histogram_of(std::vector<float>{2, 2, 2});
  EXPECT_EQ(same.counts, std::vector<double>{3});
  EXPECT_EQ(same.right_edges, std::vector<double>{2});
  EXPECT_TRUE(histogram_of(std::vector<float>{inf}).counts.empty());
}

TEST(TrainingBoard, TensorBoardReadsHistogramsAndPictures) {
  const std::string python = test::python_with("tensorboard.backend.event_processing.event_accumulator");
  if (python.empty()) GTEST_SKIP() << "no Python with tensorboard (GM_PYTHON names one)";
  test::TempDir dir;
  const std::string run = dir / "run", data = dir / "set";
  test::write_text(dir / "tiny.yaml", test::tiny_config());
  expect_success(test::run("gm_data", {"synth", "--classes", "gz5", "--count", "100", "--size", "40",
                                       "--format", "png", "--quiet", "--out", data}));
  expect_success(
      test::run("gm_train", {dir / "tiny.yaml", "--data", data, "--out", run, "--device", "cpu", "--threads",
                             "2", "--quiet", "--set", "train.epochs=3", "--set", "train.board_epochs=2"}));
  expect_success(test::run("gm_eval", {"--model", run + "/last.safetensors", "--data", data, "--split", "val",
                                       "--device", "cpu", "--out", dir / "eval", "--quiet"}));
  test::write_text(dir / "check.py", R"(
import json, struct, sys
import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator, IMAGES, HISTOGRAMS
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util import tensor_util
import glob
run, out = sys.argv[1:]
board = EventAccumulator(run, size_guidance={IMAGES: 0, HISTOGRAMS: 0})
board.Reload()
tags = board.Tags()
assert len(board.Scalars("loss/train")) == 3
with open(run + "/last.safetensors", "rb") as f:
    header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
    start = f.tell()
    tensors = {}
    for name, t in header.items():
        if name != "__metadata__":
            a, b = t["data_offsets"]
            f.seek(start + a)
            tensors[name] = np.frombuffer(f.read(b - a), "<f4")
shown = {t[len("weights/"):] for t in tags["histograms"] if t.startswith("weights/")}
assert shown == {n for n in tensors if "moving_" not in n and not n.startswith("optimizer/")}, shown
assert {"gradients/" + n for n in shown} <= set(tags["histograms"])
for name in shown:
    events = board.Histograms("weights/" + name)
    assert [e.step for e in events] == [1, 3]
    h, values = events[-1].histogram_value, tensors[name].astype(np.float64)
    assert (h.min, h.max, h.num) == (values.min(), values.max(), values.size)
    assert np.isclose(h.sum, values.sum(), rtol=1e-12, atol=1e-12)
    assert np.isclose(h.sum_squares, (values**2).sum(), rtol=1e-12)
    if h.min < h.max:
        counts, edges = np.histogram(values, 30)
        assert list(h.bucket) == list(counts), (name, h.bucket, counts)
        assert np.allclose(h.bucket_limit, edges[1:], rtol=1e-12, atol=1e-15)
    g = board.Histograms("gradients/" + name)[-1].histogram_value
    assert g.num == values.size and g.sum_squares > 0, name
for tag, file in (("confusion of the validation", "confusion.png"), ("training samples", "samples.png")):
    events = board.Images(tag)
    assert [e.step for e in events] == [1, 3], tag
    with open(out + "/" + file, "wb") as f:
        f.write(events[-1].encoded_image_string)
    width, height = struct.unpack(">II", events[-1].encoded_image_string[16:24])
    assert (events[-1].width, events[-1].height) == (width, height)
# The form that the dashboards of TensorBoard 2 are served.
for event in EventFileLoader(glob.glob(run + "/events.out.tfevents.*")[0]).Load():
    for value in event.summary.value:
        kind = value.metadata.plugin_data.plugin_name
        if value.tag.startswith(("weights/", "gradients/")):
            table = tensor_util.make_ndarray(value.tensor)
            assert kind == "histograms" and table.shape[1] == 3
            assert (table[:, 0] <= table[:, 1]).all() and (table[1:, 0] == table[:-1, 1]).all()
        elif value.tag in ("training samples", "confusion of the validation"):
            assert kind == "images"
)");
  ASSERT_EQ(
      std::system((python + " '" + (dir / "check.py") + "' '" + run + "' '" + dir.path() + "'").c_str()), 0);
  EXPECT_EQ(read_image(dir / "confusion.png").rgb, read_image(dir / "eval/confusion.png").rgb);

  // Epoch 3 as the loader augments it: the first training image is the first cell.
  const Image samples = read_image(dir / "samples.png");
  EXPECT_EQ(samples.width, 8 * 32 + 7 * 2);
  EXPECT_EQ(samples.height, 2 * 32 + 2);
  const auto set = open_dataset(data);
  const Split split = read_split(run + "/split.csv", *set);
  const Transform transform(TransformConfig::gz(32), true);
  const int64_t row = split.train[0];
  const Image first = augmented_image(transform, set->read(row), 0, 2, static_cast<uint32_t>(row));
  for (int y = 0; y < 32; ++y)
    EXPECT_TRUE(std::equal(first.rgb.begin() + y * 96, first.rgb.begin() + (y + 1) * 96,
                           samples.rgb.begin() + y * 3 * samples.width))
        << y;
}

/// What a board of `images` training images leaves; read as bytes, where no TensorBoard is.
std::string board_file(int images, uint64_t seed, bool frozen) {
  test::TempDir dir;
  const auto device = open_device("cpu", {.threads = 1});
  ParameterTable table;
  BuildOptions build{.training = true};
  if (frozen) build.freeze.layers = {"stem_conv"};
  build_network(read_architecture(parse_yaml(test::tiny_config(), "tiny"), "tiny"), table, build);
  Weights weights(*device, table, false, true);
  weights.initialize(table, 3);
  ImageCache cache(std::make_shared<test::FakeDataset>(images, 5, 32), 1 << 20);
  std::vector<int64_t> rows(static_cast<size_t>(images));
  for (int i = 0; i < images; ++i) rows[i] = i;
  TrainingBoard board(dir.path(), 1,
                      {.device = *device,
                       .table = table,
                       .weights = weights,
                       .images = cache,
                       .classes = gz5_classes(),
                       .training = Transform(TransformConfig::gz(32), true),
                       .rows = rows,
                       .seed = seed});
  EpochMetrics m;
  m.train_loss = 0.5, m.val_loss = 0.25, m.train_accuracy = 0.75, m.val_accuracy = 0.125;
  board.epoch(m, ConfusionMatrix(5));
  return test::read_text(std::filesystem::directory_iterator(dir.path())->path());
}

/// The pictures in it, in their order.
std::vector<Image> pictures_in(const std::string& file) {
  std::vector<Image> pictures;
  const std::string begin = "\x89PNG\r\n\x1a\n", end = "IEND";
  for (size_t at = 0; (at = file.find(begin, at)) != std::string::npos;) {
    const size_t next = file.find(end, at) + 8;
    pictures.push_back(
        decode_image(reinterpret_cast<const uint8_t*>(file.data()) + at, next - at, "picture"));
    at = next;
  }
  return pictures;
}

TEST(TrainingBoard, ShowsImagesFromAllOverTheTrainingSet) {
  const uint64_t seed = 9;
  const std::vector<Image> pictures = pictures_in(board_file(160, seed, false));
  ASSERT_EQ(pictures.size(), 2u);
  const test::FakeDataset data(160, 5, 32);
  const Transform transform(TransformConfig::gz(32), true);
  for (const int shown : {0, 1, 8, 15}) {
    const auto row = static_cast<uint32_t>(shown * 10);
    const Image want = augmented_image(transform, data.read(row), seed, 0, row);
    const int left = shown % 8 * 34, top = shown / 8 * 34;
    for (int y = 0; y < 32; ++y)
      EXPECT_TRUE(std::equal(want.rgb.begin() + y * 96, want.rgb.begin() + (y + 1) * 96,
                             pictures[0].rgb.begin() + ((top + y) * pictures[0].width + left) * 3))
          << shown << " " << y;
  }
}

TEST(TrainingBoard, EveryScalarHasItsOwnNumber) {
  const std::string file = board_file(8, 0, false);
  for (const auto& [tag, value] : {std::pair{"loss/train", 0.5f},
                                   {"loss/val", 0.25f},
                                   {"accuracy/train", 0.75f},
                                   {"accuracy/val", 0.125f}})
    EXPECT_NE(file.find(tag + std::string("\x15") + std::string(reinterpret_cast<const char*>(&value), 4)),
              std::string::npos)
        << tag;
}

TEST(TrainingBoard, FrozenLayersHaveNoHistograms) {
  const std::string file = board_file(8, 0, true);
  EXPECT_EQ(file.find("weights/stem_conv"), std::string::npos);
  EXPECT_EQ(file.find("gradients/stem_conv"), std::string::npos);
  EXPECT_NE(file.find("weights/top_conv"), std::string::npos);
  EXPECT_NE(board_file(8, 0, false).find("weights/stem_conv"), std::string::npos);
}

}  // namespace
}  // namespace gm
