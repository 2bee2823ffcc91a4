// gm_eval against predictions.csv, against gm_train's own validation and on data that does not fit the model.
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>

#include "data/csv.h"
#include "data/hdf5_util.h"
#include "data/image.h"
#include "data/predictions.h"
#include "engine/calibration.h"
#include "tests/tools_test_util.h"
#include "tools/pictures/canvas.h"
#include "tools/pictures/confusion_picture.h"

namespace gm {
namespace {

namespace fs = std::filesystem;
using test::expect_failure;
using test::expect_success;
using test::Ran;
using test::run;
using test::TempDir;

double printed_accuracy(const Ran& r) {
  EXPECT_EQ(r.out.rfind("accuracy ", 0), 0u) << r.out;
  EXPECT_EQ(std::count(r.out.begin(), r.out.end(), '\n'), 1) << r.out;
  return r.out.size() > 9 ? std::stod(r.out.substr(9)) : -1;
}

/// A run of one epoch on 100 synthetic images: 90 for training, 10 for validation.
class Eval : public testing::Test {
 protected:
  Eval() {
    test::write_text(dir / "tiny.yaml", test::tiny_config());
    expect_success(test::run("gm_data", {"synth", "--classes", "gz5", "--count", "100", "--size", "40",
                                         "--format", "png", "--quiet", "--out", data}));
    expect_success(run("gm_train", {dir / "tiny.yaml", "--data", data, "--out", model, "--epochs", "1",
                                    "--device", "cpu", "--threads", "2", "--quiet"}));
  }
  Ran eval(const std::string& m, const std::string& d, std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"--model", m, "--data", d, "--device", "cpu", "--threads", "2", "--quiet"});
    return run("gm_eval", more);
  }

  TempDir dir;
  std::string data = dir / "set", model = dir / "run", out = dir / "out";
};

/// From the probabilities in predictions.csv, which have seven digits.
void expect_calibration(const nlohmann::json& j, const CsvTable& csv,
                        const std::function<int(const std::string&)>& index) {
  std::vector<ScoredImage> images;
  std::vector<const ScoredImage*> pointers;
  for (int64_t r = 0; r < csv.rows(); ++r) {
    images.push_back({{}, index(csv.cell(r, 1))});
    for (int c = 0; c < 5; ++c)
      images.back().logits.push_back(static_cast<float>(std::log(std::stod(csv.cell(r, 3 + c)))));
  }
  for (const auto& image : images) pointers.push_back(&image);
  const std::vector<double> ones(images.size(), 1);
  const Calibration raw = calibration_of(images, ones),
                    halves = calibration_of(images, cross_fitted_temperatures(images, 0));
  EXPECT_NEAR(j["temperature"].get<double>() / fit_temperature(pointers), 1, 1e-3);
  EXPECT_NEAR(j["ece"].get<double>(), raw.ece, 1e-5);
  EXPECT_NEAR(j["nll"].get<double>(), raw.nll, 1e-5);
  EXPECT_NEAR(j["brier"].get<double>(), raw.brier, 1e-5);
  EXPECT_NEAR(j["nll_calibrated"].get<double>(), halves.nll, 1e-4);
  EXPECT_NEAR(j["ece_calibrated"].get<double>(), halves.ece, 1e-3);
  int64_t n = 0;
  for (const auto& bin : j["bins"]) n += bin["n"].get<int64_t>();
  EXPECT_EQ(n, 100);
}

TEST_F(Eval, AgreesWithItsPredictionsAndWithTraining) {
  const Ran all = eval(model, data, {"--out", out});
  expect_success(all);
  EXPECT_EQ(all.err, "");
  const CsvTable csv(out + "/predictions.csv");
  EXPECT_EQ(csv.column_list(), "id_str, label, class, p_round, p_in-between, p_cigar, p_edge-on, p_spiral");
  ASSERT_EQ(csv.rows(), 100);
  const auto& names = gz5_classes();
  auto index = [&](const std::string& name) {
    return static_cast<int>(std::find(names.begin(), names.end(), name) - names.begin());
  };
  ConfusionMatrix confusion(5);
  for (int64_t r = 0; r < csv.rows(); ++r) {
    confusion.add(index(csv.cell(r, 1)), index(csv.cell(r, 2)));
    for (int c = 0; c < 5; ++c)
      EXPECT_LE(std::stod(csv.cell(r, 3 + c)), std::stod(csv.cell(r, 3 + index(csv.cell(r, 2)))));
  }
  EXPECT_NEAR(printed_accuracy(all), static_cast<double>(confusion.correct()) / 100, 1e-6);

  const auto j = nlohmann::json::parse(test::read_text(out + "/metrics.json"));
  const Metrics m = metrics_of(confusion);
  EXPECT_EQ(j["accuracy"], m.accuracy);
  EXPECT_EQ(j["accuracy_within_one"], m.accuracy_within_one);
  EXPECT_EQ(j["macro_precision"], m.macro.precision);
  EXPECT_EQ(j["macro_recall"], m.macro.recall);
  EXPECT_EQ(j["macro_f1"], m.macro.f1);
  EXPECT_EQ(j["weighted_precision"], m.weighted.precision);
  EXPECT_EQ(j["weighted_recall"], m.weighted.recall);
  EXPECT_EQ(j["weighted_f1"], m.weighted.f1);
  EXPECT_EQ(j["n"], 100);
  EXPECT_EQ(j["classes"], names);
  for (int t = 0; t < 5; ++t) {
    for (int p = 0; p < 5; ++p) EXPECT_EQ(j["confusion"][t][p], confusion.at(t, p));
    EXPECT_EQ(j["per_class"][t]["recall"], m.per_class[t].recall);
    EXPECT_EQ(j["per_class"][t]["support"], m.per_class[t].support);
  }
  const MetricIntervals intervals = bootstrap_metrics(confusion, 0);
  const auto pair = [](const Interval& i) { return nlohmann::json{i.low, i.high}; };
  EXPECT_EQ(j["accuracy_ci95"], pair(intervals.accuracy));
  EXPECT_EQ(j["macro_f1_ci95"], pair(intervals.macro.f1));
  EXPECT_EQ(j["weighted_recall_ci95"], pair(intervals.weighted.recall));
  EXPECT_EQ(j["per_class"][1]["precision_ci95"], pair(intervals.per_class[1].precision));
  const auto network = nlohmann::json::parse(run("gm_model", {model, "--json"}).out);
  for (const char* key : {"params_total", "params_trainable", "macs", "flops_eq13", "input"})
    EXPECT_EQ(j[key], network[key]) << key;
  expect_calibration(j["calibration"], csv, index);
  EXPECT_EQ(read_image(out + "/confusion.png").rgb, confusion_picture(confusion, names).rgb);

  // The parts of the split are those of the run; gm_train measured the same weights on the same images.
  const CsvTable metrics(model + "/metrics.csv");
  const Ran val = eval(model + "/last.safetensors", data, {"--split", "val", "--out", dir / "val"});
  expect_success(val);
  EXPECT_NEAR(printed_accuracy(val),
              std::stod(metrics.cell(metrics.rows() - 1, metrics.column("val_accuracy"))), 1e-6);
  expect_success(eval(model, data, {"--split", "train", "--out", dir / "train"}));
  EXPECT_EQ(CsvTable(dir / "val/predictions.csv").rows() + CsvTable(dir / "train/predictions.csv").rows(),
            100);
  expect_failure(eval(model, data, {"--split", "test"}), 1, {model + "/split.csv", "no test images"});
  fs::remove(model + "/split.csv");
  expect_failure(eval(model, data, {"--split", "val"}), 1, {model + "/split.csv", "--split val"});
}

TEST_F(Eval, TimesTheNetwork) {
  const Ran r =
      run("gm_eval", {"--model", model, "--data", data, "--device", "cpu", "--out", out, "--speed"});
  expect_success(r);
  EXPECT_NE(r.err.find("median ms"), std::string::npos) << r.err;
  const auto j = nlohmann::json::parse(test::read_text(out + "/metrics.json"));
  std::vector<int> batches;
  for (const auto& row : j["speed"]) {
    batches.push_back(row["batch"]);
    EXPECT_GT(row["median_ms"], 0);
    EXPECT_LE(row["p5_ms"], row["median_ms"]);
    EXPECT_GE(row["p95_ms"], row["median_ms"]);
    EXPECT_NEAR(row["images_per_second"].get<double>(),
                row["batch"].get<double>() / row["median_ms"].get<double>() * 1e3, 1e-6);
  }
  EXPECT_EQ(batches, (std::vector<int>{1, 4, 16, 64}));
}

/// 20 images of a catalog whose label cells come from `label(i)`; "" is no label.
std::string catalog(const std::string& folder, const std::function<std::string(int)>& label) {
  fs::create_directories(folder + "/images");
  std::string csv = "id_str,label\n";
  for (int i = 0; i < 20; ++i) {
    write_image(folder + "/images/g" + std::to_string(i) + ".png", test::gradient(32, 32, i * 10));
    csv += "g" + std::to_string(i) + "," + label(i) + "\n";
  }
  test::write_text(folder + "/labels.csv", csv);
  return folder;
}

class EvalInput : public testing::Test {
 protected:
  EvalInput() { test::write_tiny_model(model); }
  Ran eval(const std::string& data, std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"--model", model, "--data", data, "--device", "cpu", "--out", out});
    return run("gm_eval", more);
  }
  TempDir dir;
  std::string model = dir / "model.safetensors", out = dir / "out";
};

TEST_F(EvalInput, NamesNumbersAndGaps) {
  const auto& names = gz5_classes();
  const auto numbers = catalog(dir / "numbers", [](int i) { return std::to_string(i % 5); });
  const auto words = catalog(dir / "words", [&](int i) { return names[i % 5]; });
  const Ran by_number = eval(numbers, {"--quiet"}), by_name = eval(words, {"--quiet"});
  expect_success(by_number);
  EXPECT_EQ(by_number.out, by_name.out);
  // Fewer classes than the model has, and rows without a label.
  const auto gaps = catalog(dir / "gaps", [&](int i) { return i % 2 ? "" : names[i % 3]; });
  const Ran r = eval(gaps);
  expect_success(r);
  EXPECT_NE(r.err.find("10 images without a label left out"), std::string::npos) << r.err;
  const auto j = nlohmann::json::parse(test::read_text(out + "/metrics.json"));
  EXPECT_EQ(j["n"], 10);
  EXPECT_EQ(j["skipped_unlabelled"], 10);
  EXPECT_EQ(j["per_class"][4]["support"], 0);
  // An unreadable image is reported and left out.
  test::write_text(dir / "words/images/g3.png", "no picture");
  const Ran bad = eval(words, {"--quiet"});
  expect_success(bad);
  EXPECT_EQ(bad.err, "gm_eval: skipped: " + (dir / "words/images/g3.png") + ": not a JPEG or PNG image\n");
  EXPECT_EQ(nlohmann::json::parse(test::read_text(out + "/metrics.json"))["skipped_unreadable"], 1);
  const std::string before = test::read_text(out + "/predictions.csv");
  expect_failure(eval(words, {"--quiet", "--strict"}), 1, {"g3.png"});
  EXPECT_EQ(test::read_text(out + "/predictions.csv"), before);
}

TEST_F(EvalInput, DataThatDoNotFit) {
  const auto seven = catalog(dir / "seven", [](int i) { return std::to_string(i % 7); });
  expect_failure(eval(seven), 1, {seven + "/labels.csv:7", "label 5 is not a class (0..4)"});
  const auto other = catalog(dir / "other", [](int i) { return i % 2 ? "round" : "comet"; });
  expect_failure(eval(other), 1, {other, "\"comet\"", "round, in-between"});
  expect_success(run("gm_data", {"pack", other, "--quiet", "--out", dir / "other.h5"}));
  expect_failure(eval(dir / "other.h5"), 1, {"other.h5", "\"comet\"", "round, in-between"});
  const auto none = catalog(dir / "none", [](int) { return ""; });
  expect_failure(eval(none), 1, {none, "no labels"});
  expect_failure(eval(none + "/images"), 1, {none + "/images", "no labels"});
  expect_failure(eval(dir / "absent"), 1, {dir / "absent", "no such file"});
  expect_failure(run("gm_eval", {"--model", dir / "absent", "--data", seven}), 1, {dir / "absent"});
  const auto good = catalog(dir / "good", [](int i) { return std::to_string(i % 5); });
  expect_failure(run("gm_eval", {"--model", model, "--data", good, "--quiet", "--out", model + "/x"}), 1,
                 {model + "/x", "cannot create"});
  EXPECT_FALSE(fs::exists(out));
  expect_failure(run("gm_eval", {"--model", model}), 2, {"--data"});
  expect_failure(eval(good, {"--split", "half"}), 2, {"--split"});
  expect_failure(eval(good, {"--seed", "-1"}), 2, {"--seed"});
  expect_failure(eval(good, {"--device", "gpu"}), 2, {"--device"});
}

TEST_F(EvalInput, PredictionsCarryLabelsInHdf5Too) {
  const std::string file = dir / "p.h5";
  auto writer = open_predictions(file, {"a", "b"}, {.labels = true});
  writer->write({{"x", {0.25, 0.75}, {0, 1}, 0}, {"y", {0.5, 0.5}, {1, 1}}});
  writer->finish();
  h5::Lock lock;
  const h5::Handle f = h5::open_file(file), set = h5::open_dataset(f, "label");
  ASSERT_TRUE(set.ok());
  int32_t labels[2];
  ASSERT_GE(H5Dread(set, H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, labels), 0);
  EXPECT_EQ(labels[0], 0);
  EXPECT_EQ(labels[1], -1);
}

// Rows are the true classes, shaded by their shares.
TEST(ConfusionPicture, RowsAreTrueClasses) {
  const int n = 65;  // without text: cells and nothing else
  ConfusionMatrix m(n);
  m.add(0, 1, 3);
  m.add(0, 2, 1);
  m.add(2, 1, 9);
  const Image image = confusion_picture(m, std::vector<std::string>(n, "x"));
  const int cell = 2048 / n, left = 16 + 24, top = 16 + 24 + 24 + 8;
  auto red = [&](int t, int p) {
    return image.rgb[((top + t * cell + cell / 2) * image.width + left + p * cell + cell / 2) * 3];
  };
  EXPECT_EQ(red(1, 0), 255);
  EXPECT_EQ(red(0, 0), 255);
  EXPECT_NEAR(red(0, 1), 255 - 0.75 * (255 - 8), 1);
  EXPECT_NEAR(red(0, 2), 255 - 0.25 * (255 - 8), 1);
  EXPECT_EQ(red(2, 1), 8) << "all of this row";
}

TEST(ConfusionPicture, NamesStandBesideTheirNumbers) {
  const std::string name(20, 'x');
  const int around = confusion_picture(ConfusionMatrix(2), {"0", "1"}).height - Canvas::text_width("0", 2);
  EXPECT_EQ(confusion_picture(ConfusionMatrix(2), {name, "b"}).height,
            around + Canvas::text_width("0 " + name, 2));
}

TEST(Canvas, TextIsShortenedTurnedAndClipped) {
  EXPECT_EQ(Canvas::shortened("galaxy", 6), "galaxy");
  EXPECT_EQ(Canvas::shortened("galaxies", 6), "gala..");
  EXPECT_EQ(Canvas::shortened("éééé", 3), "é..");
  EXPECT_EQ(Canvas::text_width("éL", 1), 11);
  const Colour white{255, 255, 255}, black{0, 0, 0};
  Canvas across(16, 16, white), upwards(16, 16, white), accented(16, 16, white), unknown(16, 16, white);
  across.text(2, 3, 1, black, "L");
  upwards.text_upwards(3, 14, 1, black, "L");
  auto dark = [](const Canvas& c, int x, int y) { return c.image().rgb[(y * 16 + x) * 3] == 0; };
  for (int y = 0; y < 16; ++y)
    for (int x = 0; x < 16; ++x) {
      const bool stem = x == 2 && y >= 3 && y < 10, foot = y == 9 && x >= 2 && x < 7;
      EXPECT_EQ(dark(across, x, y), stem || foot) << x << " " << y;
      EXPECT_EQ(dark(upwards, x, y), (y == 13 && x >= 3 && x < 10) || (x == 9 && y >= 9 && y < 14))
          << x << " " << y;
    }
  accented.text(0, 0, 1, black, "éL");  // a box and a letter
  unknown.text(0, 0, 1, black, "L");
  EXPECT_EQ(accented.image().rgb, unknown.image().rgb);
}

// Above scale 1 letters are strokes: a column of font pixels has no gaps.
TEST(Canvas, LargeLettersAreJoined) {
  Canvas canvas(40, 50, {255, 255, 255});
  canvas.text(0, 0, 6, {0, 0, 0}, "L");
  for (int y = 3; y < 39; ++y) EXPECT_LT(canvas.image().rgb[(y * 40 + 3) * 3], 60) << y;
}

// Any number of classes and any names give a picture of a sane size.
TEST(ConfusionPicture, Sizes) {
  for (int n : {1, 2, 24, 25, 64, 65, 3000}) {
    std::vector<std::string> names;
    for (int c = 0; c < n; ++c) names.push_back(std::string(c % 90, 'x') + "é");
    ConfusionMatrix m(n);
    m.add(n - 1, 0);
    const Image image = confusion_picture(m, names);
    EXPECT_LE(std::max(image.width, image.height), 4096) << n;
    check_image(image, "picture");
  }
}

}  // namespace
}  // namespace gm
