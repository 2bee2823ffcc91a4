// gm_explain: arrays against the library, which images and classes are explained, input that does not fit.
#include <cmath>
#include <set>

#include "data/hdf5_util.h"
#include "layers/attribution.h"
#include "tests/tools_test_util.h"
#include "tests/vectors.h"
#include "tools/explainer.h"
#include "tools/pictures/canvas.h"
#include "tools/pictures/explain_picture.h"

namespace gm {
namespace {

namespace fs = std::filesystem;
using test::expect_failure;
using test::expect_success;
using test::Ran;
using test::run;
using test::TempDir;

template <class T>
std::vector<T> read_h5(const std::string& path, const char* name, hid_t type,
                       const std::vector<hsize_t>& shape) {
  h5::Lock lock;
  const h5::Handle file = h5::open_file(path), set = h5::open_dataset(file, name);
  EXPECT_TRUE(set.ok()) << name;
  if (!set.ok()) return {};
  EXPECT_EQ(h5::shape_of(set), shape) << name;
  hsize_t count = 1;
  for (hsize_t n : shape) count *= n;
  std::vector<T> values(count);
  EXPECT_GE(H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0);
  return values;
}

std::vector<std::string> attribute(const std::string& path, const char* name) {
  h5::Lock lock;
  const h5::Handle file = h5::open_file(path);
  return h5::read_string_attribute(file, name);
}

/// Five labelled images of the network's size, which are used pixel for pixel.
class Explain : public testing::Test {
 protected:
  Explain() {
    weights = test::write_tiny_model(model);
    fs::create_directories(data + "/images");
    std::string csv = "id_str,label\n";
    for (int i = 0; i < 5; ++i) {
      images.push_back(test::gradient(32, 32, 50 * i));
      for (size_t k = 0; k < images[i].rgb.size(); k += 7)
        images[i].rgb[k] = static_cast<uint8_t>(k * (i + 3) % 256);
      write_image(data + "/images/g" + std::to_string(i) + ".png", images[i]);
      csv += "g" + std::to_string(i) + "," + (i == 4 ? "" : std::to_string(i)) + "\n";
    }
    test::write_text(data + "/labels.csv", csv);
  }
  Ran explain(std::vector<std::string> args) {
    args.insert(args.begin(), {"--model", model, "--out", out, "--quiet", "--device", "cpu", "--threads", "1",
                               "--samples", "2", "--batch", "2"});
    return run("gm_explain", args);
  }
  std::vector<int32_t> explained(hsize_t n) {
    return read_h5<int32_t>(out + "/explain.h5", "explained", H5T_NATIVE_INT32, {n});
  }

  TempDir dir;
  std::string model = dir / "model.safetensors", data = dir / "set", out = dir / "out";
  std::vector<Image> images;
  TensorFile weights;
};

TEST_F(Explain, ArraysAreThoseOfTheLibrary) {
  expect_success(explain({data, "--seed", "7"}));
  const std::string file = out + "/explain.h5";
  EXPECT_EQ(attribute(file, "class_names"), gz5_classes());
  EXPECT_EQ(attribute(file, "layer"), std::vector<std::string>{"top_activation"});
  EXPECT_EQ(attribute(file, "smoothgrad_seed"), std::vector<std::string>{"7"});
  const auto pixels = read_h5<uint8_t>(file, "images", H5T_NATIVE_UINT8, {5, 32, 32, 3});
  const auto labels = read_h5<int32_t>(file, "label", H5T_NATIVE_INT32, {5});
  EXPECT_EQ(labels, (std::vector<int32_t>{0, 1, 2, 3, -1}));
  const auto predicted = read_h5<int32_t>(file, "predicted", H5T_NATIVE_INT32, {5});
  EXPECT_EQ(explained(5), predicted);
  const auto saliency = read_h5<float>(file, "saliency", H5T_NATIVE_FLOAT, {5, 32, 32});
  const auto smooth = read_h5<float>(file, "smoothgrad", H5T_NATIVE_FLOAT, {5, 32, 32});
  const auto cam = read_h5<float>(file, "gradcam", H5T_NATIVE_FLOAT, {5, 32, 32});
  const auto map = read_h5<float>(file, "gradcam_map", H5T_NATIVE_FLOAT, {5, 8, 8});
  const auto logit = read_h5<float>(file, "logit", H5T_NATIVE_FLOAT, {5});

  const ModelFile m = read_model(model);
  auto device = open_device("cpu", {.threads = 1});
  Attribution net(*device, m.architecture, m.tensors, 1);
  for (int i = 0; i < 5; ++i) {
    SCOPED_TRACE(i);
    EXPECT_TRUE(std::equal(images[i].rgb.begin(), images[i].rgb.end(), pixels.begin() + i * 3072));
    const std::vector<float> x(images[i].rgb.begin(), images[i].rgb.end());
    const auto z = net.logits(x);
    EXPECT_EQ(predicted[i], std::max_element(z.begin(), z.end()) - z.begin());
    EXPECT_NEAR(logit[i], z[predicted[i]], 1e-5);
    net.differentiate({predicted[i]});
    const auto want = channel_magnitude(net.pixel_gradient()), want_map = net.grad_cam();
    const auto want_smooth = channel_magnitude(
        net.smooth_gradient(x, {predicted[i]}, {i}, {.samples = 2, .noise = 0.15, .seed = 7}));
    const float top = *std::max_element(want.begin(), want.end()),
                cam_top = *std::max_element(want_map.begin(), want_map.end());
    EXPECT_GT(top, 0);
    for (int k = 0; k < 1024; ++k) {
      EXPECT_NEAR(saliency[i * 1024 + k], want[k], 1e-4 * top);
      EXPECT_NEAR(smooth[i * 1024 + k], want_smooth[k], 1e-4 * top);
    }
    for (int k = 0; k < 64; ++k) EXPECT_NEAR(map[i * 64 + k], want_map[k], 1e-4 * cam_top);
    const auto wide = enlarge_map(map.data() + i * 64, 8, 8, 32);
    EXPECT_TRUE(std::equal(wide.begin(), wide.end(), cam.begin() + i * 1024));
    EXPECT_EQ(read_image(out + "/g" + std::to_string(i) + ".png").width, 4 * 224 + 30 + 32);
  }
  EXPECT_GT(read_image(out + "/sheet.png").height, 5 * 224);
}

TEST_F(Explain, ChoiceOfClassMethodAndLayer) {
  expect_success(explain({data, "--class", "label", "--method", "saliency"}));
  EXPECT_EQ(explained(4), (std::vector<int32_t>{0, 1, 2, 3}));
  EXPECT_FALSE(fs::exists(out + "/g4.png"));
  {
    h5::Lock lock;
    const h5::Handle file = h5::open_file(out + "/explain.h5");
    EXPECT_TRUE(h5::open_dataset(file, "saliency").ok());
    EXPECT_FALSE(h5::open_dataset(file, "smoothgrad").ok());
    EXPECT_FALSE(h5::open_dataset(file, "gradcam").ok());
  }
  for (const char* name : {"cigar", "2"}) {
    expect_success(explain({data, "--class", name, "--method", "gradcam", "--layer", "block2b_add"}));
    EXPECT_EQ(explained(5), std::vector<int32_t>(5, 2));
    EXPECT_EQ(attribute(out + "/explain.h5", "layer"), std::vector<std::string>{"block2b_add"});
  }
  // A folder of images has no labels; data of other classes are explained without them.
  expect_success(explain({data + "/images"}));
  EXPECT_EQ(explained(5).size(), 5u);
  test::write_text(data + "/labels.csv", "id_str,label\ng0,comet\ng1,planet\n");
  expect_success(explain({data}));
  EXPECT_EQ(explained(2).size(), 2u);
}

TEST_F(Explain, InputThatDoesNotFit) {
  expect_failure(explain({data, "--layer", "top_activatoin"}), 1,
                 {"no layer 'top_activatoin'", "there are top_activation, "});
  expect_failure(explain({data, "--class", "cigars"}), 1, {"--class cigars", "cigar, "});
  expect_failure(explain({data, data + "/images", "--class", "label"}), 1, {data + "/images", "no labels"});
  test::write_text(dir / "bare.csv", "id_str,file_loc\ng0,set/images/g0.png\n");
  expect_failure(explain({dir / "bare.csv", "--class", "label"}), 1, {"bare.csv", "no labels"});
  test::write_text(dir / "foreign.csv", "file_loc,label\nset/images/g0.png,comet\n");
  expect_failure(explain({dir / "foreign.csv", "--class", "label"}), 1,
                 {"foreign.csv:2", "class \"comet\" is not one of the model's"});
  expect_failure(explain({data, "--method", "lime"}), 2, {"--method"});
  expect_failure(explain({data, "--samples", "0"}), 2, {"--samples"});
  expect_failure(run("gm_explain", {"--model", model, data}), 2, {"--out"});
  EXPECT_FALSE(fs::exists(out));
  test::write_text(data + "/images/g2.png", "no picture");
  const Ran bad = explain({data, "--class", "label"});
  expect_success(bad);
  EXPECT_EQ(bad.err, "gm_explain: skipped: " + data + "/images/g2.png: not a JPEG or PNG image\n");
  EXPECT_EQ(explained(3), (std::vector<int32_t>{0, 1, 3}));
  EXPECT_FALSE(fs::exists(out + "/g2.png"));
  const std::string before = test::read_text(out + "/explain.h5");
  expect_failure(explain({data, "--strict"}), 1, {"g2.png"});
  EXPECT_EQ(test::read_text(out + "/explain.h5"), before);
  expect_failure(explain({data + "/images/g2.png"}), 1, {"g2.png"});
}

TEST_F(Explain, InputsAreNotReplaced) {
  const std::string picture = test::read_text(data + "/images/g0.png");
  for (const std::string& input : {data, data + "/images", data + "/images/g0.png"})
    expect_failure(run("gm_explain", {"--model", model, input, "--out", data + "/images/../images"}), 1,
                   {"holds images"});
  EXPECT_EQ(test::read_text(data + "/images/g0.png"), picture);
}

TEST_F(Explain, IdentifiersBecomeFileNames) {
  test::write_text(data + "/labels.csv",
                   "id_str,file_loc\n../a/b,images/g0.png\nsheet,images/g1.png\nsheet,images/g2.png\n"
                   ".hidden,images/g3.png\n");
  expect_success(explain({data, "--method", "saliency"}));
  for (const char* name : {"_._a_b.png", "sheet.png", "sheet_2.png", "sheet_3.png", "_hidden.png"})
    EXPECT_TRUE(fs::exists(out + "/" + name)) << name;
  EXPECT_EQ(std::distance(fs::directory_iterator(out), {}), 6);
}

TEST_F(Explain, HalfPrecisionWeightFiles) {
  for (auto& [name, tensor] : weights.tensors) {
    const auto wide = tensor.floats();
    std::vector<bf16> half;
    for (float v : wide) half.push_back(from_float<bf16>(v));
    tensor.spec.dtype = DType::bf16;
    tensor.bytes.assign(reinterpret_cast<const char*>(half.data()),
                        reinterpret_cast<const char*>(half.data() + half.size()));
  }
  expect_success(explain({data, "--method", "saliency", "--class", "0"}));
  const auto wide = read_h5<float>(out + "/explain.h5", "saliency", H5T_NATIVE_FLOAT, {5, 32, 32});
  write_safetensors(model, weights);
  expect_success(explain({data, "--method", "saliency", "--class", "0"}));
  const auto half = read_h5<float>(out + "/explain.h5", "saliency", H5T_NATIVE_FLOAT, {5, 32, 32});
  const double error = test::relative_l2(half, wide);
  EXPECT_GT(error, 0);
  EXPECT_LT(error, 0.05);
}

TEST(EnlargeMap, KeepsCentresAndEdges) {
  const float map[] = {1, 3, 5, 7};
  const auto wide = enlarge_map(map, 2, 2, 4);
  const std::vector<float> first{1, 1.5f, 2.5f, 3}, last{5, 5.5f, 6.5f, 7};
  EXPECT_TRUE(std::equal(first.begin(), first.end(), wide.begin()));
  EXPECT_TRUE(std::equal(last.begin(), last.end(), wide.end() - 4));
  EXPECT_FLOAT_EQ(wide[4], 2);
  EXPECT_EQ(enlarge_map(map, 1, 1, 3), std::vector<float>(9, 1.f));
}

/// An image of 32 px with two maps that grow from left to right.
Explanation explanation() {
  Explanation e;
  e.id = "g";
  e.image = test::gradient(32, 32);
  e.label = 1, e.predicted = 0, e.explained = 0;
  e.probability = 0.75;
  for (int i = 0; i < 32 * 32; ++i) e.saliency.push_back(static_cast<float>(i % 32) / 31);
  e.cam = e.saliency;
  return e;
}

TEST(ExplainPicture, SaysAllThatIsKnownOfTheImage) {
  auto picture = [](const Explanation& e) { return explain_picture({&e, 1}, {"a", "b", "c"}, "top").rgb; };
  const Explanation e = explanation();
  Explanation unlabelled = e, another = e, of_another = e;
  unlabelled.label = -1;
  another.explained = 1;
  of_another.explained = 2;
  const std::set<std::vector<uint8_t>> all{picture(e), picture(unlabelled), picture(another),
                                           picture(of_another)};
  EXPECT_EQ(all.size(), 4u);
  EXPECT_NE(explain_picture({&e, 1}, {"a", "b", "c"}, "other").rgb, picture(e)) << "the layer of Grad-CAM";
}

// From cold, which shows the picture in grey, to hot; all above the 99th percentile is as hot as it.
TEST(ExplainPicture, MapsLieOverTheGreyPicture) {
  Explanation e = explanation();
  e.cam.clear();
  e.image = Image{32, 32, std::vector<uint8_t>(32 * 32 * 3, 100)};
  for (float& v : e.saliency) v = std::min(v, 0.5f);
  e.saliency[0] = 1000;  // a single pixel
  const Image picture = explain_picture({&e, 1}, {"a", "b", "c"}, "top");
  auto at = [&](int x, int y) {  // of the second panel
    const auto p = picture.rgb.begin() + ((16 + 34 + 24 + y) * picture.width + 16 + 224 + 10 + x) * 3;
    return std::vector<int>(p, p + 3);
  };
  EXPECT_EQ(at(3, 112), (std::vector<int>{100, 100, 100})) << "cold";
  const std::vector<int> hot = at(200, 112);
  EXPECT_GT(hot[0], 200);
  EXPECT_GT(hot[1], 200);
  EXPECT_GT(hot[0] + hot[1], 2 * hot[2] + 100) << "pale yellow";
}

TEST(ExplainPicture, SaysTheRangeOfAMapAndItsUnit) {
  Explanation e = explanation();
  std::fill(e.saliency.begin(), e.saliency.end(), 1.2e-5f);
  const Image picture = explain_picture({&e, 1}, {"a", "b", "c"}, "top");
  constexpr int kSide = 224, kHeight = 20;
  auto drawn_at = [&](double scale) {
    const std::string text = "0 to 1.2e-05 per grey level";
    Canvas line(kSide, kHeight, {255, 255, 255});
    line.text((kSide - Canvas::text_width(text, scale)) / 2, 5, scale, {90, 90, 90}, text);
    for (int y = 0; y < kHeight; ++y) {  // below the second panel
      const auto row =
          picture.rgb.begin() + ((16 + 34 + 24 + kSide + y) * picture.width + 16 + kSide + 10) * 3;
      if (!std::equal(row, row + kSide * 3, line.image().rgb.begin() + y * kSide * 3,
                      [](int a, int b) { return std::abs(a - b) < 3; }))
        return false;
    }
    return true;
  };
  bool drawn = false;
  for (int scale = 100; scale <= 200; scale += 5) drawn |= drawn_at(scale / 100.);
  EXPECT_TRUE(drawn);
}

TEST_F(Explain, ScoresAreThoseOfTheClassesTheyStandFor) {
  const ModelFile m = read_model(model);
  const auto device = open_device("cpu", {.threads = 1});
  Explainer explainer(*device, m, 1, {.saliency = false, .smooth = false});
  EXPECT_EQ(explainer.layer_text(), "top_activation (8 x 8 x 16)");
  const auto set = open_dataset(data, {.classes = gz5_classes()});
  HostBatch batch;
  batch.count = 1;
  batch.rows = {0};
  batch.pixels.assign(images[0].rgb.begin(), images[0].rgb.end());
  for (float& v : batch.pixels) v = std::min(255.f, v + 0.75f);
  Attribution net(*device, m.architecture, m.tensors, 1);
  const auto z = net.logits(batch.pixels);
  const Explanation e =
      explainer.explain(*set, batch, [](int, int predicted) { return (predicted + 1) % 5; })[0];
  EXPECT_EQ(e.explained, (e.predicted + 1) % 5);
  EXPECT_NEAR(e.logit, z[e.explained], 1e-5);
  double sum = 0;
  for (const float v : z) sum += std::exp(v - z[e.predicted]);
  EXPECT_NEAR(e.probability, 1 / sum, 1e-6);
  EXPECT_EQ(e.image.rgb[0], std::min(255, images[0].rgb[0] + 1)) << "rounded";
  EXPECT_GT(*std::max_element(e.cam_map.begin(), e.cam_map.end()), 0) << "without saliency, too";
}

}  // namespace
}  // namespace gm
