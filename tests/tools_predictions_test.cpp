// What gm_infer writes: FITS judged by astropy, sky positions, averages over symmetries and dropout masks.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <set>

#include "data/hdf5_util.h"
#include "data/predictions.h"
#include "tests/python_test_util.h"
#include "tests/tools_test_util.h"
#include "tools/classify.h"

namespace gm {
namespace {

namespace fs = std::filesystem;
using test::expect_failure;
using test::expect_success;
using test::Ran;
using test::run;

class Predictions : public testing::Test {
 protected:
  Predictions() {
    test::write_tiny_model(model);
    std::string csv = "id_str,label,ra,dec\n";
    fs::create_directories(dir / "set/images");
    for (int i = 0; i < 10; ++i) {
      const std::string id = i == 3 ? "a-rather-long-identifier" : "g" + std::to_string(i);
      write_image(dir / "set/images/" + id + ".png", test::gradient(32, 32, i * 17));
      csv += id + "," + std::to_string(i % 5) + (i == 4 ? ",,\n" : ",1" + std::to_string(i) + ".125,-0.5\n");
    }
    test::write_text(dir / "set/labels.csv", csv);
  }
  Ran infer(const std::string& out, std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"--model", model, dir / "set", "--out", out, "--device", "cpu", "--threads",
                               "2", "--quiet"});
    if (std::find(more.begin(), more.end(), "--batch") == more.end())
      more.insert(more.end(), {"--batch", "4"});
    return run("gm_infer", more);
  }
  CsvTable table(const std::string& name, std::vector<std::string> more = {}) {
    expect_success(infer(dir / name, std::move(more)));
    return CsvTable(dir / name);
  }
  test::TempDir dir;
  std::string model = dir / "model.safetensors";
};

TEST_F(Predictions, CarryPositionsWhereKnown) {
  const CsvTable t = table("p.csv", {"--logits"});
  EXPECT_EQ(t.column_list(),
            "id_str, class, p_round, p_in-between, p_cigar, p_edge-on, p_spiral, z_round, z_in-between, "
            "z_cigar, z_edge-on, z_spiral, ra, dec");
  EXPECT_EQ(t.cell(2, t.column("ra")), "12.125");
  EXPECT_EQ(t.cell(2, t.column("dec")), "-0.5");
  EXPECT_EQ(t.cell(4, t.column("ra")), "");
  expect_success(infer(dir / "p.h5"));
  h5::Lock lock;
  const h5::Handle f = h5::open_file(dir / "p.h5"), set = h5::open_dataset(f, "ra");
  ASSERT_TRUE(set.ok());
  double ra[10];
  ASSERT_GE(H5Dread(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, ra), 0);
  EXPECT_EQ(ra[3], 13.125);
  EXPECT_TRUE(std::isnan(ra[4]));
}

// A position that f32 held would be off by an arcsecond and more.
TEST_F(Predictions, KeepTheDigitsOfPositionsAndLogits) {
  const Prediction row{.id = "g",
                       .probabilities = {0.25, 0.75},
                       .logits = {1.23456788f, 2},
                       .ra = 123.4567891,
                       .dec = -0.123456789};
  auto write = [&](const std::string& name) {
    const auto writer = open_predictions(dir / name, {"a", "b"}, {.logits = true, .sky = true});
    writer->write({row});
    writer->finish();
  };
  write("p.csv");
  EXPECT_EQ(test::read_text(dir / "p.csv"),
            "id_str,class,p_a,p_b,z_a,z_b,ra,dec\ng,b,0.25,0.75,1.23456788,2,123.4567891,-0.123456789\n");
  write("p.h5");
  h5::Lock lock;
  const h5::Handle f = h5::open_file(dir / "p.h5");
  for (const auto& [name, want] : {std::pair{"ra", row.ra}, {"dec", row.dec}}) {
    double got = 0;
    ASSERT_GE(H5Dread(h5::open_dataset(f, name), H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, &got), 0);
    EXPECT_EQ(got, want) << name;
  }
  float logits[2];
  ASSERT_GE(H5Dread(h5::open_dataset(f, "logits"), H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, logits),
            0);
  EXPECT_EQ(logits[0], row.logits[0]);
  try {
    write("p.fits");
  } catch (const Error& e) {
    ASSERT_NE(std::string(e.what()).find("without CFITSIO"), std::string::npos) << e.what();
    return;
  }
  const std::string fits = test::read_text(dir / "p.fits");
  for (double value : {row.ra, row.dec}) {
    std::string bytes(reinterpret_cast<const char*>(&value), sizeof value);
    std::ranges::reverse(bytes);  // FITS is big-endian
    EXPECT_NE(fits.find(bytes), std::string::npos) << value;
  }
}

TEST_F(Predictions, AstropyReadsFits) {
  const Ran made = infer(dir / "p [1].fits", {"--logits", "--mc-dropout", "3"});
  if (made.err.find("without CFITSIO") != std::string::npos) GTEST_SKIP() << "built without CFITSIO";
  expect_success(made);
  EXPECT_NE(test::read_text(dir / "p [1].fits").find("CHECKSUM= '"), std::string::npos)
      << "one that is missing is not wrong to astropy";
  const CsvTable t = table("p.csv", {"--logits", "--mc-dropout", "3"});
  const std::string python = test::python_with("astropy");
  if (python.empty()) GTEST_SKIP() << "no Python with astropy (GM_PYTHON names one)";
  test::write_text(dir / "check.py", R"(
import csv, math, sys, warnings
warnings.simplefilter("error")
from astropy.io import fits
from astropy.table import Table
with fits.open(sys.argv[1], checksum=True) as f:
    f.verify("exception")
    assert f[1].name == "PREDICTIONS"
t = Table.read(sys.argv[1], hdu=1)
with open(sys.argv[2]) as f:
    rows = list(csv.DictReader(f))
assert t.colnames == list(rows[0]), t.colnames
assert len(t) == len(rows)
assert str(t["ra"].unit) == "deg"
for a, b in zip(t, rows):
    for name, text in b.items():
        if name in ("id_str", "class"):
            assert str(a[name]) == text, (name, a[name], text)
        elif text == "":
            assert a[name] is __import__("numpy").ma.masked or math.isnan(a[name])
        else:
            assert abs(float(a[name]) - float(text)) <= 1e-6 * max(1, abs(float(text))), (name, a[name], text)
)");
  EXPECT_EQ(std::system((python + " '" + (dir / "check.py") + "' '" + (dir / "p [1].fits") + "' '" +
                         (dir / "p.csv") + "'")
                            .c_str()),
            0);
}

TEST_F(Predictions, FitsIsWholeOrAbsent) {
  fs::create_directory(dir / "full");
  std::vector<std::string> args{"--model",           model,      dir / "set", "--out",
                                dir / "full/p.fits", "--device", "cpu",       "--quiet"};
  const Ran r = run("gm_infer", args, {.file_limit = 3000});
  if (r.err.find("without CFITSIO") != std::string::npos) GTEST_SKIP() << "built without CFITSIO";
  expect_failure(r, 1, {dir / "full/p.fits", "cannot write"});
  EXPECT_TRUE(fs::is_empty(dir / "full"));
  EXPECT_THROW(open_predictions(dir / "x.fits", {"A", "a"}, {}), Error);
  EXPECT_THROW(open_predictions(dir / "absent/x.fits", {"a"}, {}), Error);
}

// A quarter turn four times and a reflection twice are the identity; the eight views are eight pictures.
TEST(Symmetries, FormTheGroupOfTheSquare) {
  std::vector<float> image(2 * 5 * 5 * 3);
  std::iota(image.begin(), image.end(), 0.f);
  std::vector<std::vector<float>> views;
  for (int view = 0; view < 8; ++view) {
    views.push_back(symmetric_view(image, 5, view));
    for (int other = 0; other < view; ++other) EXPECT_NE(views[view], views[other]);
  }
  EXPECT_EQ(views[0], image);
  EXPECT_EQ(symmetric_view(views[1], 5, 1), views[2]);
  EXPECT_EQ(symmetric_view(views[1], 5, 3), image);
  EXPECT_EQ(symmetric_view(views[4], 5, 4), image);

  // a b
  // c d
  const auto turned = [](int view) {
    std::vector<float> square;
    for (char c : {'a', 'b', 'c', 'd'}) square.insert(square.end(), 3, static_cast<float>(c));
    const auto v = symmetric_view(square, 2, view);
    return std::string{char(v[0]), char(v[3]), char(v[6]), char(v[9])};
  };
  std::set<std::string> all;
  for (int view = 0; view < 8; ++view) all.insert(turned(view));
  EXPECT_EQ(all, (std::set<std::string>{"abcd", "cadb", "dcba", "bdac", "badc", "dbca", "cdab", "acbd"}));
}

TEST_F(Predictions, TestTimeAugmentationIsTheMeanOverViews) {
  const CsvTable t = table("tta.csv", {"--tta"});
  // The same by hand: eight folders of turned pictures, eight runs.
  std::vector<double> mean(5);
  const Image original = read_image(dir / "set/images/g2.png");
  const std::vector<float> pixels(original.rgb.begin(), original.rgb.end());
  for (int view = 0; view < 8; ++view) {
    const auto turned = symmetric_view(pixels, 32, view);
    const std::string name = dir / "turned" + std::to_string(view) + ".png";
    write_image(name, {32, 32, std::vector<uint8_t>(turned.begin(), turned.end())});
    expect_success(
        run("gm_infer", {"--model", model, name, "--out", dir / "one.csv", "--device", "cpu", "--quiet"}));
    const CsvTable one(dir / "one.csv");
    for (int c = 0; c < 5; ++c) mean[c] += std::stod(one.cell(0, 2 + c)) / 8;
  }
  for (int c = 0; c < 5; ++c) EXPECT_NEAR(std::stod(t.cell(2, 2 + c)), mean[c], 1e-6);
}

// The mean over all 2^16 masks of the 16 pooled features, in double precision, is what samples must approach.
TEST_F(Predictions, DropoutSamplesApproachTheMeanOverAllMasks) {
  constexpr int kSamples = 4000, kFeatures = 16, kClasses = 5;
  const double rate = 0.2;  // of tiny_config()
  const CsvTable sampled = table("mc.csv", {"--mc-dropout", std::to_string(kSamples)});
  // The same network with an identity in the place of its classifier: its logits are the features.
  TensorFile file = read_safetensors(model);
  const auto kernel = file.at("predictions/kernel").floats(), bias = file.at("predictions/bias").floats();
  std::vector<float> identity(kFeatures * kFeatures);
  for (int f = 0; f < kFeatures; ++f) identity[f * (kFeatures + 1)] = 1;
  file.tensors["predictions/kernel"] = StoredTensor::of({kFeatures, kFeatures}, identity);
  file.tensors["predictions/bias"] = StoredTensor::of({kFeatures}, std::vector<float>(kFeatures));
  std::string config = test::tiny_config();
  config.replace(config.find("classes: 5"), 10, "classes: 16");
  const YAML::Node node = parse_yaml(config, "tiny");
  file.metadata = model_metadata(read_architecture(node, "tiny"), node["augment"]);
  write_safetensors(dir / "features.safetensors", file);
  expect_success(run("gm_infer", {"--model", dir / "features.safetensors", dir / "set", "--logits", "--out",
                                  dir / "features.csv", "--device", "cpu", "--quiet"}));
  const CsvTable features(dir / "features.csv");

  auto entropy = [](const double* p) {
    double sum = 0;
    for (int c = 0; c < kClasses; ++c) sum -= p[c] * std::log(p[c]);
    return sum;
  };
  for (int64_t r = 0; r < 3; ++r) {
    double term[kFeatures][kClasses];
    for (int f = 0; f < kFeatures; ++f) {
      const double x = std::stod(features.cell(r, features.column("z_0") + f)) / (1 - rate);
      for (int c = 0; c < kClasses; ++c) term[f][c] = x * kernel[c * kFeatures + f];
    }
    double mean[kClasses] = {}, square[kClasses] = {}, mean_entropy = 0, square_entropy = 0;
    for (unsigned mask = 0; mask < 1u << kFeatures; ++mask) {
      double weight = 1, z[kClasses], sum = 0;
      for (int c = 0; c < kClasses; ++c) z[c] = bias[c];
      for (int f = 0; f < kFeatures; ++f) {
        const bool kept = mask >> f & 1;
        weight *= kept ? 1 - rate : rate;
        for (int c = 0; c < kClasses && kept; ++c) z[c] += term[f][c];
      }
      for (double& v : z) sum += v = std::exp(v);
      for (double& v : z) v /= sum;
      const double h = entropy(z);
      for (int c = 0; c < kClasses; ++c) mean[c] += weight * z[c], square[c] += weight * z[c] * z[c];
      mean_entropy += weight * h;
      square_entropy += weight * h * h;
    }
    auto five_errors = [&](double m, double s) { return 5 * std::sqrt((s - m * m) / kSamples) + 1e-6; };
    double p[kClasses];
    for (int c = 0; c < kClasses; ++c) {
      p[c] = std::stod(sampled.cell(r, 2 + c));
      EXPECT_NEAR(p[c], mean[c], five_errors(mean[c], square[c]));
    }
    EXPECT_NEAR(std::stod(sampled.cell(r, sampled.column("entropy"))), entropy(p), 1e-5);
    const double information = std::stod(sampled.cell(r, sampled.column("mutual_information")));
    EXPECT_NEAR(entropy(p) - information, mean_entropy, five_errors(mean_entropy, square_entropy));
    EXPECT_GT(information, 0);
  }
}

TEST_F(Predictions, DropoutSamplesFollowTheSeedAlone) {
  table("a.csv", {"--mc-dropout", "20"});
  table("again.csv", {"--mc-dropout", "20"});
  table("other.csv", {"--mc-dropout", "20", "--seed", "1"});
  EXPECT_EQ(test::read_text(dir / "a.csv"), test::read_text(dir / "again.csv"));
  EXPECT_NE(test::read_text(dir / "a.csv"), test::read_text(dir / "other.csv"));
  table("batches.csv", {"--mc-dropout", "20", "--batch", "2"});
  EXPECT_EQ(test::read_text(dir / "a.csv"), test::read_text(dir / "batches.csv")) << "an image's place";
  std::string config = test::tiny_config();
  config.replace(config.find("dropout: 0.2"), 12, "dropout: 0.0");
  TensorFile file = read_safetensors(model);
  YAML::Node node = parse_yaml(config, "tiny");
  Architecture a = read_architecture(node, "tiny");
  a.class_names = gz5_classes();
  file.metadata = model_metadata(a, node["augment"]);
  write_safetensors(model, file);
  expect_failure(infer(dir / "x.csv", {"--mc-dropout", "4"}), 1, {"model.safetensors", "no dropout"});
  expect_failure(infer(dir / "x.csv", {"--mc-dropout", "1"}), 2, {"--mc-dropout"});
}

// However they are cut into inputs, images share batches and are written in the order of the command.
TEST_F(Predictions, AreTheSameOfAFolderAndOfItsFiles) {
  test::write_text(dir / "set/images/bad.png", "no picture");
  const std::string one = dir / "one.csv", many = dir / "many.csv";
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(dir / "set/images")) files.push_back(entry.path().string());
  std::sort(files.begin(), files.end());
  auto infer_all = [&](std::vector<std::string> args, const std::string& out) {
    args.insert(args.end(), {"--model", model, "--batch", "4", "--device", "cpu", "--quiet", "--out", out});
    return run("gm_infer", args);
  };
  const Ran folder = infer_all({dir / "set/images", "--logits"}, one);
  files.push_back("--logits");
  const Ran single = infer_all(files, many);
  expect_success(folder);
  expect_success(single);
  EXPECT_EQ(folder.err, "gm_infer: skipped: " + (dir / "set/images/bad.png: not a JPEG or PNG image\n"));
  EXPECT_EQ(single.err, folder.err);
  EXPECT_EQ(test::read_text(many), test::read_text(one));

  // An image, a packed file and a catalog: only the image has no position.
  expect_success(run("gm_data", {"pack", dir / "set", "--quiet", "--out", dir / "set.h5"}));
  expect_success(infer_all({files[0], dir / "set.h5", dir / "set"}, many));
  const CsvTable table(many);
  ASSERT_EQ(table.rows(), 21);
  EXPECT_EQ(table.cell(0, 0), fs::path(files[0]).stem().string());
  EXPECT_EQ(table.cell(0, table.column("ra")), "");
  for (int64_t r : {1, 11}) {
    EXPECT_EQ(table.cell(r + 3, 0), "a-rather-long-identifier");
    EXPECT_EQ(table.cell(r + 2, table.column("ra")), "12.125");
    EXPECT_EQ(table.cell(r + 2, 2), table.cell(3, 2));
  }
}

TEST_F(Predictions, ScoresThatAreNotFiniteAreAnError) {
  TensorFile file = read_safetensors(model);
  file.tensors["predictions/bias"] = StoredTensor::of({5}, {0, 0, std::nanf(""), 0, 0});
  write_safetensors(model, file);
  expect_failure(infer(dir / "x.csv"), 1, {dir / "set", "g0", "not finite"});
  EXPECT_FALSE(fs::exists(dir / "x.csv"));
  const Ran second = run("gm_infer", {"--model", model, dir / "set/images/g1.png", dir / "set", "--device",
                                      "cpu", "--out", dir / "x.csv", "--quiet"});
  expect_failure(second, 1, {dir / "set/images/g1.png: g1", "not finite"});
}

}  // namespace
}  // namespace gm
