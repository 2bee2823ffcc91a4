// Imported weights give the outputs of the framework they come from; files written by Keras and torchvision
// (golden/make_keras_golden.py, golden/make_nested_golden.py, golden/make_torchvision_golden.py).
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <map>
#include <thread>

#include "data/hdf5_util.h"
#include "data/keras_config.h"
#include "data/keras_weights.h"
#include "data/keras_writer.h"
#include "data/zip_file.h"
#include "engine/session.h"
#include "engine/weight_file.h"
#include "layers/import.h"
#include "layers/rewrites.h"
#include "tests/data_test_util.h"
#include "tests/vectors.h"

namespace gm {
namespace {

const std::string kFolder = std::string(GM_SOURCE_DIR) + "/tests/golden/import/";

Architecture narrow() { return read_architecture(load_config(kFolder + "narrow_v2.yaml"), "narrow_v2.yaml"); }

// Relative L2 distance of our logits from those in `golden`.
double error(const Architecture& a, const TensorFile& weights, const TensorFile& golden) {
  auto device = open_device("cpu", {.threads = 2});
  const StoredTensor& pixels = golden.at("pixels");
  ParameterTable table;
  const NetworkGraph g = build_network(a, table, {.batch = pixels.spec.shape[0], .loss = false});
  Weights w(*device, table, false, false);
  load_weights(weights, table, w);
  FoldedNetwork folded(g);
  Weights fw(*device, folded.table, false, false);
  folded.refresh(table, w, fw);
  Session s(*device, folded.net.graph, fw, {.keep = {folded.net.logits}});
  const auto* bytes = reinterpret_cast<const uint8_t*>(pixels.bytes.data());
  const std::vector<float> wide(bytes, bytes + pixels.bytes.size());
  s.upload(folded.net.pixels, wide.data());
  s.forward();
  return test::relative_l2(s.download(folded.net.logits), golden.at("logits").floats());
}

// The message of the gm::Error that `action` throws; it must be one line.
std::string message(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& e) {
    EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}
void expect_parts(const std::string& text, const std::vector<std::string>& parts) {
  for (const auto& part : parts) EXPECT_NE(text.find(part), std::string::npos) << part << " not in: " << text;
}

// The bytes of an archive with one member as it is.
std::string stored_archive(const std::string& name, const std::string& content, uint32_t check_sum) {
  auto little = [](uint64_t value, int size) {
    std::string bytes;
    for (int i = 0; i < size; ++i) bytes += static_cast<char>(value >> 8 * i);
    return bytes;
  };
  const std::string common = little(0, 8) + little(check_sum, 4) + little(content.size(), 4) +
                             little(content.size(), 4) + little(name.size(), 2) + little(0, 2);
  const std::string local = "PK\3\4" + little(20, 2) + common + name + content;
  const std::string entry = "PK\1\2" + little(20, 2) + little(20, 2) + common + little(0, 14) + name;
  return local + entry + "PK\5\6" + little(0, 4) + little(1, 2) + little(1, 2) + little(entry.size(), 4) +
         little(local.size(), 4) + little(0, 2);
}

TEST(ZipFile, MembersAreCheckedAndTold) {
  test::TempDir dir;
  const std::string path = dir / "a.zip";
  auto read = [&](const std::string& bytes, const std::string& member = "text") {
    test::write_text(path, bytes);
    return read_zip_member(path, member);
  };
  constexpr uint32_t kCheckSum = 0x352441C2;  // CRC-32 of "abc"
  const std::string good = stored_archive("text", "abc", kCheckSum);
  EXPECT_EQ(read(good), "abc");
  EXPECT_TRUE(is_zip(path));
  EXPECT_EQ(read(good + "a comment"), "abc");
  expect_parts(message([&] { read(good, "other"); }), {path, "without other"});
  expect_parts(message([&] { read(stored_archive("text", "abd", kCheckSum)); }), {path, "text", "check sum"});
  const size_t end = good.find("PK\5\6");  // the record at the end, of which not all bytes matter
  for (size_t keep = 0; keep < end; ++keep)
    expect_parts(message([&] { read(good.substr(0, keep)); }), {path, "truncated"});
  std::string bad = good;
  bad[8] = bad[good.find("PK\1\2") + 10] = 99;
  expect_parts(message([&] { read(bad); }), {path, "text", "neither stored nor deflated"});
}

class KerasFile : public testing::TestWithParam<const char*> {};

TEST_P(KerasFile, GivesKerasLogits) {
  Architecture a = narrow();
  a.same_padding = false;  // what the source does wins
  a.bn_epsilon = 0.1;
  a.classes = 9;
  adopt_conventions(a, Framework::keras);
  const Imported imported =
      import_weights(read_keras_weights(kFolder + GetParam()), Framework::keras, a, false);
  EXPECT_EQ(a.classes, 5);
  EXPECT_TRUE(imported.unused.empty());
  EXPECT_LT(error(a, imported.tensors, read_safetensors(kFolder + "keras_v2.safetensors")), 1e-5);
}
INSTANTIATE_TEST_SUITE_P(Formats, KerasFile, testing::Values("keras_v2.h5", "keras_v2.weights.h5"));

Architecture nested() {
  Architecture a = read_architecture(load_config(kFolder + "nested_v2.yaml"), "nested_v2.yaml");
  adopt_conventions(a, Framework::keras);
  return a;
}

// A backbone as one layer of a model, behind layers that scale and before CBAM and a head with names of their
// own.
class KerasAroundABackbone : public testing::TestWithParam<const char*> {
 protected:
  std::string file(const std::string& extension) const { return kFolder + GetParam() + extension; }
  TensorFile golden() const { return read_safetensors(file(".safetensors")); }
};

TEST_P(KerasAroundABackbone, TheWholeModelGivesKerasLogits) {
  Architecture a = nested();
  TensorFile source = read_keras_weights(file(".keras"));
  EXPECT_TRUE(source.tensors.contains("block2c_dwconv2/0"));  // named by the configuration
  const auto scaling = take_pixel_scaling(source);
  ASSERT_TRUE(scaling);
  a.mean = scaling->mean, a.std = scaling->std;
  EXPECT_NEAR(a.mean[2], 108.8, 1e-9);  // (1.25 x - 8) / 128 - 1
  EXPECT_NEAR(a.std[2], 102.4, 1e-9);
  const Imported imported = import_weights(source, Framework::keras, a, false);
  EXPECT_EQ(a.classes, 5);
  EXPECT_TRUE(imported.unused.empty());
  EXPECT_LT(error(a, imported.tensors, golden()), 1e-5);
  a.mean = {128, 128, 128}, a.std = {128, 128, 128};
  EXPECT_GT(error(a, imported.tensors, golden()), 1e-2);
}

// model.save_weights writes what lies in the archive: layers by class and number, anew in each model.
TEST_P(KerasAroundABackbone, WeightsAloneGiveThemOnceTheScalingIsSaid) {
  test::TempDir dir;
  const std::string path = dir / "model.weights.h5";
  test::write_text(path, read_zip_member(file(".keras"), "model.weights.h5"));
  TensorFile source = read_keras_weights(path);
  EXPECT_FALSE(source.tensors.contains("block2c_dwconv2/0"));
  expect_parts(message([&] { take_pixel_scaling(source); }),
               {path, "'rescaling'", "input.scaling", ".keras"});
  Architecture a = nested();
  a.mean = {250, 512. / 3, 108.8}, a.std = {256, 512. / 3, 102.4};
  const Imported imported = import_weights(source, Framework::keras, a, false);
  EXPECT_TRUE(imported.unused.empty());
  EXPECT_LT(error(a, imported.tensors, golden()), 1e-5);
}

TEST_P(KerasAroundABackbone, AnotherHeadIsNotTakenForOurs) {
  const TensorFile source = read_keras_weights(file(".keras"));
  Architecture a = nested();
  a.hidden = {};  // features would do as predictions of 12 classes
  expect_parts(message([&] { import_weights(source, Framework::keras, a, false); }),
               {"'features', 'galaxy_class'", "no place", "--allow-missing-head"});
  EXPECT_EQ(a.classes, 3);
}
INSTANTIATE_TEST_SUITE_P(Versions, KerasAroundABackbone, testing::Values("nested_keras2", "nested_keras3"));

TEST(Import, TorchvisionFileGivesItsLogits) {
  Architecture a = narrow();
  adopt_conventions(a, Framework::torchvision);
  const TensorFile golden = read_safetensors(kFolder + "torchvision_v2.safetensors");
  const Imported imported = import_weights(golden, Framework::torchvision, a, false);
  EXPECT_EQ(imported.unused, (std::vector<std::string>{"logits", "pixels"}));
  EXPECT_LT(error(a, imported.tensors, golden), 1e-5);
  Architecture tensorflow = a;
  tensorflow.same_padding = true;  // the odd size tells the two paddings apart
  EXPECT_GT(error(tensorflow, imported.tensors, golden), 1e-3);
}

// A network with every kind of layer that has a name of its own somewhere.
Architecture rich() {
  return read_architecture(parse_yaml(R"(
model:
  classes: 4
  se: 0.25
  stem: {filters: 8}
  stages:
    - {block: mbconv, expand: 1, filters: 8}
    - {block: fused_mbconv, expand: 1, filters: 8}
    - {block: fused_mbconv, expand: 4, filters: 12, stride: 2, layers: 2, se: 0.25}
    - {block: mbconv, expand: 3, kernel: 5, filters: 16, layers: 28}
  head: {filters: 24}
  attention: {type: cbam, variant: authors, reduction: 4}
  hidden: {units: 6}
input: {size: 32}
)",
                                      "rich"),
                           "rich");
}

TEST(Import, ExportIsTheInverse) {
  const Architecture a = rich();
  ParameterTable table;
  build_network(a, table, {.loss = false});
  TensorFile model;
  float x = 0;
  for (const Parameter& p : table) {
    std::vector<float> values(static_cast<size_t>(p.shape.numel()));
    for (float& v : values) v = x++;  // every element is different
    model.tensors[p.name] = StoredTensor::of(p.shape, values);
  }
  for (Framework f : {Framework::keras, Framework::timm, Framework::torchvision}) {
    const TensorFile out = export_weights(model, a, f);
    EXPECT_EQ(out.tensors.size(), model.tensors.size());  // no two layers share a name
    Architecture b = a;
    const Imported back = import_weights(out, f, b, false);
    EXPECT_TRUE(back.unused.empty());
    for (const auto& [name, t] : model.tensors) {
      EXPECT_EQ(back.tensors.at(name).spec.shape, t.spec.shape) << name;
      EXPECT_EQ(back.tensors.at(name).bytes, t.bytes) << name;
    }
  }
  const TensorFile keras = export_weights(model, a, Framework::keras),
                   timm = export_weights(model, a, Framework::timm);
  EXPECT_EQ(keras.at("stem_conv/kernel").spec.shape, (Shape{3, 3, 3, 8}));
  EXPECT_EQ(keras.at("block4ab_dwconv2/kernel").spec.shape, (Shape{5, 5, 48, 1}));
  EXPECT_EQ(keras.at("block4b_se_reduce/kernel").spec.shape, (Shape{1, 1, 48, 4}));
  EXPECT_EQ(keras.at("predictions/kernel").spec.shape, (Shape{6, 4}));
  EXPECT_EQ(timm.at("conv_stem.weight").spec.shape, (Shape{8, 3, 3, 3}));
  EXPECT_EQ(timm.at("blocks.0.0.conv_pw.weight").spec.shape, (Shape{8, 8, 1, 1}));
  EXPECT_EQ(timm.at("blocks.1.0.conv.weight").spec.shape, (Shape{8, 8, 3, 3}));
  EXPECT_EQ(timm.at("blocks.2.1.conv_exp.weight").spec.shape, (Shape{48, 12, 3, 3}));
  EXPECT_EQ(timm.at("blocks.3.27.conv_dw.weight").spec.shape, (Shape{48, 1, 5, 5}));
  EXPECT_EQ(timm.at("blocks.3.27.se.conv_expand.weight").spec.shape, (Shape{48, 4, 1, 1}));
  EXPECT_EQ(timm.at("blocks.3.27.bn3.running_var").spec.shape, (Shape{16}));
}

TEST(Import, ConventionsFollowTheSource) {
  auto adopted = [](Framework f, const std::string& variant = "", bool same = true) {
    Architecture a = narrow();
    a.same_padding = same;
    adopt_conventions(a, f, variant);
    return conventions_text(a);
  };
  const std::string imagenet = "(x - (123.675, 116.28, 103.53)) / (58.395, 57.12, 57.375)";
  EXPECT_EQ(adopted(Framework::keras),
            "padding same, batch norm epsilon 0.001, input scaling (x - 128) / 128");
  EXPECT_EQ(adopted(Framework::torchvision),
            "padding symmetric, batch norm epsilon 0.001, input scaling " + imagenet);
  const std::string tf = "padding same, batch norm epsilon 0.001, input scaling (x - 127.5) / 127.5",
                    plain = "padding symmetric, batch norm epsilon 1e-05, input scaling " + imagenet;
  EXPECT_EQ(adopted(Framework::timm), tf);
  EXPECT_EQ(adopted(Framework::timm, "", false), plain);
  EXPECT_EQ(adopted(Framework::timm, "efficientnetv2_s"), plain);
  EXPECT_EQ(adopted(Framework::timm, "tf_efficientnetv2_s.in21k_ft_in1k", false), tf);
  EXPECT_EQ(adopted(Framework::timm, "tf_efficientnetv2_b0"),
            "padding same, batch norm epsilon 0.001, input scaling " + imagenet);
}

// Means and deviations of timm 1.0's pretrained configurations.
TEST(Import, TimmsNamesDecideTheScaling) {
  auto halves = [](const std::string& name) {
    Architecture a = narrow();
    adopt_conventions(a, Framework::timm, name);
    return a.mean == std::vector<double>(3, 127.5) && a.std == a.mean;
  };
  for (const char* name : {"tf_efficientnetv2_m", "tf_efficientnetv2_xl.in21k", "tf_efficientnetv2_b3",
                           "tf_efficientnetv2_b3.in21k_ft_in1k", "tf_efficientnet_b0.ap_in1k",
                           "efficientnet_b0.ra4_e3600_r224_in1k", "efficientnet_b1",
                           "efficientnet_b2_pruned.in1k", "tf_efficientnet_lite0.in1k", "tf_efficientnet_es"})
    EXPECT_TRUE(halves(name)) << name;
  for (const char* name :
       {"tf_efficientnetv2_b3.in1k", "tf_efficientnetv2_b0", "efficientnet_b0", "efficientnet_b0.ra_in1k",
        "efficientnet_b1.ft_in1k", "tf_efficientnet_b0.ns_jft_in1k", "mobilenetv2_100"})
    EXPECT_FALSE(halves(name)) << name;
  for (const char* name : {"efficentnet_b0", "tf_resnet50"})
    expect_parts(message([&] { halves(name); }), {std::string("'") + name + "'"});
}

TEST(Import, AConfigurationIsTakenForTheTimmModelOfItsBlocks) {
  auto taken = [](const std::string& name, const std::vector<std::string>& sets = {}) {
    const std::string file = std::string(GM_SOURCE_DIR) + "/models/" + name + ".yaml";
    return timm_model_of(read_architecture(load_config(file, sets), file));
  };
  EXPECT_EQ(taken("effv2s"), "tf_efficientnetv2_s");
  EXPECT_EQ(taken("effv2s_cbam", {"model.padding=symmetric"}), "efficientnetv2_s");
  EXPECT_EQ(taken("effv2b0"), "tf_efficientnetv2_b0");
  EXPECT_EQ(taken("effv2b3"), "tf_efficientnetv2_b3");
  EXPECT_EQ(taken("efficientnet_b0"), "tf_efficientnet_b0");
  EXPECT_EQ(taken("efficientnet_b0", {"model.padding=symmetric"}), "efficientnet_b0");
  EXPECT_EQ(taken("mobilenetv2"), "mobilenetv2_100");
}

// Keras's EfficientNet keeps its scaling in the file, as new networks have it, adapted, or as published.
TEST(Import, KerasNormalizationDecidesTheScaling) {
  Architecture plain = narrow();
  const Imported network = import_weights(read_safetensors(kFolder + "torchvision_v2.safetensors"),
                                          Framework::torchvision, plain, false);
  const TensorFile keras = export_weights(network.tensors, plain, Framework::keras);
  auto scaling = [&](const std::vector<float>& mean, const std::vector<float>& variance, bool numbered) {
    TensorFile file = keras;
    file.tensors[numbered ? "normalization/0" : "normalization/mean"] = StoredTensor::of({3}, mean);
    file.tensors[numbered ? "normalization/1" : "normalization/variance"] = StoredTensor::of({3}, variance);
    Architecture a = narrow();
    adopt_conventions(a, Framework::keras);
    const Imported imported = import_weights(file, Framework::keras, a, false);
    EXPECT_TRUE(imported.unused.empty());
    return conventions_text(a);
  };
  const std::string start = "padding same, batch norm epsilon 0.001, input scaling ";
  EXPECT_EQ(scaling({0, 0, 0}, {1, 1, 1}, false), start + "(x - 0) / 255");
  EXPECT_EQ(scaling({0.5f, 0.5f, 0.5f}, {0.25f, 0.25f, 0.25f}, true), start + "(x - 127.5) / 127.5");
  EXPECT_EQ(scaling({0.485f, 0.456f, 0.406f}, {0.229f, 0.224f, 0.225f}, false),
            start + "(x - (123.675, 116.28, 103.53)) / (58.395, 57.12, 57.375)");
}

TEST(Import, MissingAndMisshapenTensorsAreNamed) {
  const TensorFile good = read_safetensors(kFolder + "torchvision_v2.safetensors");
  auto import = [&](const TensorFile& file, bool allow = false, Architecture a = narrow()) {
    return import_weights(file, Framework::torchvision, a, allow);
  };
  TensorFile bad = good;
  bad.tensors.erase("features.2.1.block.0.1.running_mean");
  expect_parts(message([&] { import(bad, true); }),
               {"torchvision_v2.safetensors", "'features.2.1.block.0.1.running_mean' is missing"});
  bad = good;
  bad.tensors["features.0.0.weight"] = StoredTensor::of({8, 3, 3, 1}, std::vector<float>(72));
  expect_parts(message([&] { import(bad); }), {"features.0.0.weight", "(8,3,3,1)", "(8,3,3,3)"});

  bad = good;  // without its classifier
  bad.tensors.erase("classifier.1.weight");
  bad.tensors.erase("classifier.1.bias");
  expect_parts(message([&] { import(bad); }), {"classifier.1.weight", "--allow-missing-head"});
  const Imported headless = import(bad, true);
  EXPECT_EQ(headless.fresh, (std::vector<std::string>{"predictions/kernel", "predictions/bias"}));
  EXPECT_EQ(headless.tensors.at("predictions/kernel").spec.shape, (Shape{5, 32}));
  EXPECT_NE(headless.tensors.at("predictions/kernel").floats()[0], 0);
  Architecture with_attention = narrow();
  with_attention.attention.type = AttentionType::cbam;
  EXPECT_EQ(import(good, true, with_attention).fresh.size(), 5u);
  expect_parts(message([&] { import(good, false, with_attention); }), {"cbam_"});
}

TEST(Import, LayersThatKerasNumberedAreTakenInOrder) {
  const Architecture a = narrow();
  TensorFile source = read_keras_weights(kFolder + "keras_v2.h5"), numbered;
  numbered.path = source.path;
  ParameterTable table;
  build_network(a, table, {.loss = false});
  std::map<std::string, std::string> layer;  // in network order
  std::map<std::string, int> count;
  for (const Parameter& p : table) {
    const std::string ours = p.name.substr(0, p.name.rfind('/'));
    if (layer.count(ours)) continue;
    const std::string kind = ours.ends_with("bn")        ? "batch_normalization"
                             : ours.ends_with("dwconv2") ? "depthwise_conv2d"
                             : ours == "predictions"     ? "dense"
                                                         : "conv2d";
    const int n = count[kind]++;
    layer[ours] = n ? kind + "_" + std::to_string(n) : kind;
  }
  for (const auto& [name, t] : source.tensors)
    numbered.tensors[layer.at(name.substr(0, name.rfind('/'))) + name.substr(name.rfind('/'))] = t;
  Architecture b = a, c = a;
  const Imported want = import_weights(source, Framework::keras, b, false),
                 got = import_weights(numbered, Framework::keras, c, false);
  EXPECT_TRUE(got.unused.empty());
  for (const auto& [name, t] : want.tensors.tensors) EXPECT_EQ(got.tensors.at(name).bytes, t.bytes) << name;
}

// What stands before the first convolution, in the words of both versions of Keras.
TEST(Import, LayersBeforeTheFirstConvolutionScale) {
  auto model = [](const std::string& layers) {
    TensorFile file;
    file.path = "model.h5";
    file.metadata[kKerasConfig] =
        R"({"class_name": "Functional", "config": {"layers": [{"class_name": "InputLayer", "config": {}},)" +
        layers +
        R"(, {"class_name": "Functional", "config": {"name": "backbone", "layers": [)"
        R"({"class_name": "Rescaling", "config": {"name": "own", "scale": 2, "offset": 1}},)"
        R"({"class_name": "Conv2D", "config": {"name": "stem_conv"}}]}},)"
        R"({"class_name": "Lambda", "config": {"name": "behind"}}]}})";
    return file;
  };
  auto expect = [&](const std::string& layers, double scale,
                    double offset) {  // of a channel, before the own one
    TensorFile file = model(layers);
    const auto s = take_pixel_scaling(file);
    ASSERT_TRUE(s) << layers;
    EXPECT_NEAR(s->std[1], 1 / (2 * scale), 1e-12) << layers;
    EXPECT_NEAR(s->mean[1], -(2 * offset + 1) / (2 * scale), 1e-12) << layers;
  };
  expect(R"({"class_name": "RandomFlip", "config": {}}, {"class_name": "Resizing", "config": {}})", 1, 0);
  expect(R"({"class_name": "Rescaling", "config": {"scale": 0.25}})", 0.25, 0);
  expect(R"({"class_name": "Rescaling", "config": {"scale": [9, 0.5, 9], "offset": [0, 3, 0]}})", 0.5, 3);
  expect(R"({"class_name": "Normalization", "config": {"mean": [[0, 8, 0]], "variance": [1, 16, 1]}})", 0.25,
         -2);
  expect(R"({"class_name": "TFOpLambda", "config": {"function": "math.truediv"},
             "inbound_nodes": [["input_1", 0, 0, {"y": 4.0, "name": null}]]},
            {"class_name": "TFOpLambda", "config": {"function": "math.subtract"},
             "inbound_nodes": [["tf.math.truediv", 0, 0, {"y": 1.0, "name": null}]]})",
         0.25, -1);
  expect(
      R"({"class_name": "TrueDivide", "config": {}, "inbound_nodes": [{"args": [{"class_name": "t"}, 4.0]}]},
            {"class_name": "Subtract", "config": {}, "inbound_nodes": [{"args": [{"class_name": "t"}, 1.0]}]})",
      0.25, -1);

  TensorFile adapted = model(R"({"class_name": "Normalization", "config": {"name": "n", "mean": null}})");
  for (const auto& [name, values] :
       {std::pair{"n/mean", std::vector<float>{1, 2, 3}}, {"n/variance", {4, 16, 4}}})
    adapted.tensors[name] = StoredTensor::of(Shape{3}, values);
  const auto s = take_pixel_scaling(adapted);
  ASSERT_TRUE(s);
  EXPECT_NEAR(s->std[1], 2, 1e-12);
  EXPECT_NEAR(s->mean[1], 0, 1e-12);
  EXPECT_TRUE(adapted.tensors.empty());

  for (
      const char* unknown :
      {R"({"class_name": "Lambda", "config": {"name": "odd"}})",
       R"({"class_name": "Rescaling", "config": {"name": "odd", "scale": "large"}})",
       R"({"class_name": "Normalization", "config": {"name": "odd"}})",
       R"({"class_name": "TrueDivide", "config": {"name": "odd"}, "inbound_nodes": [{"args": [{}, {}]}]})"}) {
    TensorFile file = model(unknown);
    expect_parts(message([&] { take_pixel_scaling(file); }), {"model.h5", "'odd'", "input.scaling"});
  }
  TensorFile broken = model("{]");
  expect_parts(message([&] { take_pixel_scaling(broken); }), {"model.h5", "not JSON"});
  TensorFile nothing = model(R"({"class_name": "Rescaling", "config": {"scale": 0}})");
  expect_parts(message([&] { take_pixel_scaling(nothing); }), {"model.h5", "nothing of the pixels"});
}

TEST(Import, MobileNetHasNamesOfItsOwn) {
  const std::string file = std::string(GM_SOURCE_DIR) + "/models/mobilenetv2.yaml";
  const Architecture a = read_architecture(load_config(file), file);
  ParameterTable table;
  build_network(a, table, {.loss = false});
  TensorFile model;
  for (const Parameter& p : table)
    model.tensors[p.name] =
        StoredTensor::of(p.shape, std::vector<float>(static_cast<size_t>(p.shape.numel())));
  const TensorFile keras = export_weights(model, a, Framework::keras),
                   torchvision = export_weights(model, a, Framework::torchvision);
  EXPECT_EQ(keras.at("Conv1/kernel").spec.shape, (Shape{3, 3, 3, 32}));
  EXPECT_EQ(keras.at("bn_Conv1/gamma").spec.shape, Shape{32});
  EXPECT_EQ(keras.at("expanded_conv_depthwise/kernel").spec.shape, (Shape{3, 3, 32, 1}));
  EXPECT_EQ(keras.at("expanded_conv_project_BN/beta").spec.shape, Shape{16});
  EXPECT_EQ(keras.at("block_3_expand/kernel").spec.shape, (Shape{1, 1, 24, 144}));
  EXPECT_EQ(keras.at("block_16_depthwise_BN/moving_mean").spec.shape, Shape{960});
  EXPECT_EQ(keras.at("Conv_1_bn/gamma").spec.shape, Shape{1280});
  EXPECT_EQ(torchvision.at("features.0.0.weight").spec.shape, (Shape{32, 3, 3, 3}));
  EXPECT_EQ(torchvision.at("features.1.conv.0.0.weight").spec.shape, (Shape{32, 1, 3, 3}));
  EXPECT_EQ(torchvision.at("features.1.conv.1.weight").spec.shape, (Shape{16, 32, 1, 1}));
  EXPECT_EQ(torchvision.at("features.1.conv.2.running_var").spec.shape, Shape{16});
  EXPECT_EQ(torchvision.at("features.4.conv.0.0.weight").spec.shape, (Shape{144, 24, 1, 1}));
  EXPECT_EQ(torchvision.at("features.17.conv.1.1.bias").spec.shape, Shape{960});
  EXPECT_EQ(torchvision.at("features.17.conv.3.weight").spec.shape, Shape{320});
  EXPECT_EQ(torchvision.at("features.18.0.weight").spec.shape, (Shape{1280, 320, 1, 1}));
  EXPECT_EQ(torchvision.at("classifier.1.weight").spec.shape, (Shape{1000, 1280}));
  for (const auto& [file, from] :
       {std::pair{keras, Framework::keras}, {torchvision, Framework::torchvision}}) {
    Architecture b = a;
    EXPECT_EQ(file.tensors.size(), model.tensors.size());
    EXPECT_TRUE(import_weights(file, from, b, false).unused.empty());
  }
}

TEST(Import, ForeignAndTruncatedFilesAreOneLine) {
  test::TempDir dir;
  const std::string text = dir / "text.h5", half = dir / "half.h5", late = dir / "late.h5";
  test::write_text(text, "model: {}\n");
  expect_parts(message([&] { read_keras_weights(text); }), {text, "not an HDF5 file"});
  expect_parts(message([&] { read_keras_weights(dir / "none.h5"); }), {"none.h5", "cannot open"});
  for (const char* name : {"keras_v2.h5", "keras_v2.weights.h5"}) {
    const std::string bytes = test::read_text(kFolder + name);
    for (size_t keep : {bytes.size() / 4, bytes.size() / 2, bytes.size() - 1}) {
      test::write_text(half, bytes.substr(0, keep));
      expect_parts(message([&] { read_keras_weights(half); }), {half});
    }
  }
  const std::string archive = test::read_text(kFolder + "nested_keras2.keras");
  for (size_t keep : {archive.size() / 4, archive.size() - 30}) {
    test::write_text(half, archive.substr(0, keep));
    expect_parts(message([&] { read_keras_weights(half); }), {half});
  }
  const std::string weights = kFolder + "keras_v2.safetensors";
  expect_parts(message([&] { read_keras_weights(weights); }), {weights, "not an HDF5 file"});
  expect_parts(message([&] { read_safetensors(kFolder + "keras_v2.h5"); }), {"not a safetensors file"});
}

// A file as Keras before 3.6 writes it: class and number, anew in each model. The value tells a layer.
TEST(Import, LayersOfInnerModelsAreNumberedFirst) {
  test::TempDir dir;
  const std::string path = dir / "counted.weights.h5";
  const std::map<std::string, float> layers{{"layers/functional/layers/dense", 0},
                                            {"layers/functional/layers/dense_2", 1},
                                            {"layers/functional/layers/dense_10", 2},
                                            {"layers/functional_1/layers/dense", 3},
                                            {"layers/dense", 4},
                                            {"layers/dense_1", 5},
                                            {"layers/conv2d_7", 6},
                                            {"layers/cbam/fc1", 7},
                                            {"layers/fc1", 8},
                                            {"layers/dropout/seed_generator", 9},
                                            {"optimizer", 9},
                                            {"metrics/mean", 9},
                                            {"_layer_checkpoint_dependencies/conv2d", 10}};
  {
    h5::Lock lock;
    h5::Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
    h5::Handle parents(H5Pcreate(H5P_LINK_CREATE), H5Pclose), one(H5Screate(H5S_SCALAR), H5Sclose);
    H5Pset_create_intermediate_group(parents, 1);
    for (const auto& [layer, value] : layers) {
      h5::Handle data(H5Dcreate2(file, (layer + "/vars/0").c_str(), H5T_IEEE_F32LE, one, parents, H5P_DEFAULT,
                                 H5P_DEFAULT),
                      H5Dclose);
      ASSERT_GE(H5Dwrite(data, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, &value), 0) << layer;
    }
  }
  std::map<std::string, float> got;
  for (const auto& [name, t] : read_keras_weights(path).tensors) got[name] = t.floats()[0];
  const std::map<std::string, float> want{
      {"dense/0", 0},   {"dense_1/0", 1}, {"dense_2/0", 2},  {"dense_3/0", 3}, {"dense_4/0", 4},
      {"dense_5/0", 5}, {"conv2d/0", 10}, {"conv2d_7/0", 6}, {"fc1/0", 8},     {"cbam.fc1/0", 7}};
  EXPECT_EQ(got, want);
}

// 2^80 elements, of which none is stored: 0 in 64 bits.
TEST(Import, ImpossibleShapesAreRefused) {
  test::TempDir dir;
  const std::string path = dir / "huge.weights.h5";
  {
    h5::Lock lock;
    h5::Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
    h5::Handle parents(H5Pcreate(H5P_LINK_CREATE), H5Pclose),
        chunked(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
    H5Pset_create_intermediate_group(parents, 1);
    const hsize_t dims[] = {hsize_t{1} << 40, hsize_t{1} << 40}, chunk[] = {1, 1};
    H5Pset_chunk(chunked, 2, chunk);
    h5::Handle space(H5Screate_simple(2, dims, nullptr), H5Sclose);
    h5::Handle data(
        H5Dcreate2(file, "layers/conv/vars/0", H5T_IEEE_F32LE, space, parents, chunked, H5P_DEFAULT),
        H5Dclose);
    ASSERT_TRUE(data.ok()) << h5::reason();
  }
  expect_parts(message([&] { read_keras_weights(path); }),
               {path, "tensor 'conv/0': its shape has too many elements"});
}

// ---- the legacy layout as older versions of Keras wrote it, by hand
// -------------------------------------------

void put_names(hid_t object, const std::string& attribute, const std::vector<std::string>& names) {
  size_t width = 1;
  for (const auto& n : names) width = std::max(width, n.size());
  std::string text;
  for (const auto& n : names) text += n + std::string(width - n.size(), '\0');
  h5::Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type, width);
  H5Tset_strpad(type, H5T_STR_NULLPAD);
  const hsize_t count = names.size();
  h5::Handle space(H5Screate_simple(1, &count, nullptr), H5Sclose);
  h5::Handle a(H5Acreate2(object, attribute.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  ASSERT_GE(H5Awrite(a, type, text.data()), 0);
}

struct LegacyOptions {
  bool whole_model = false;  // weights under the group model_weights
  bool chunked = false;      // layer_names0, layer_names1
  std::string prefix;        // of the weights of a nested model
  std::string without;       // listed, but the dataset is absent
};

// Keras 2: names end in ":0", depthwise kernels are called depthwise_kernel, layers without weights are
// listed.
void write_legacy(const std::string& path, const TensorFile& tensors, const LegacyOptions& o) {
  h5::Lock lock;
  h5::Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
  auto group_in = [](hid_t at, const std::string& name) {
    return h5::Handle(H5Gcreate2(at, name.c_str(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Gclose);
  };
  h5::Handle inner;
  if (o.whole_model) inner = group_in(file, "model_weights");
  const hid_t root = o.whole_model ? hid_t(inner) : hid_t(file);
  std::map<std::string, std::vector<std::string>> weights{{"rescaling", {}}};
  for (const auto& [name, _] : tensors.tensors)
    weights[name.substr(0, name.rfind('/'))].push_back(name.substr(name.rfind('/') + 1));
  std::vector<std::string> layers;
  h5::Handle create(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
  H5Pset_create_intermediate_group(create, 1);
  for (const auto& [layer, kinds] : weights) {
    layers.push_back(layer);
    const h5::Handle group = group_in(root, layer);
    std::vector<std::string> listed;
    for (const std::string& kind : kinds) {
      const StoredTensor& t = tensors.at(layer + "/" + kind);
      const bool depthwise = layer.ends_with("dwconv2") && kind == "kernel";
      listed.push_back(o.prefix + layer + "/" + (depthwise ? "depthwise_kernel" : kind) + ":0");
      if (layer + "/" + kind == o.without) continue;
      std::vector<hsize_t> dims(t.spec.shape.dims.begin(), t.spec.shape.dims.begin() + t.spec.shape.rank);
      h5::Handle space(H5Screate_simple(t.spec.shape.rank, dims.data(), nullptr), H5Sclose);
      h5::Handle data(
          H5Dcreate2(group, listed.back().c_str(), H5T_IEEE_F32LE, space, create, H5P_DEFAULT, H5P_DEFAULT),
          H5Dclose);
      ASSERT_GE(H5Dwrite(data, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, t.floats().data()), 0);
    }
    if (!listed.empty()) put_names(group, "weight_names", listed);
  }
  if (o.chunked) {
    const auto middle = layers.begin() + static_cast<std::ptrdiff_t>(layers.size() / 2);
    put_names(root, "layer_names0", {layers.begin(), middle});
    put_names(root, "layer_names1", {middle, layers.end()});
  } else {
    put_names(root, "layer_names", layers);
  }
}

TEST(Import, OlderKerasLayouts) {
  test::TempDir dir;
  const std::string path = dir / "old.h5";
  const TensorFile source = read_keras_weights(kFolder + "keras_v2.h5");
  Architecture a = narrow(), b = a;
  const Imported want = import_weights(source, Framework::keras, a, false);
  for (const LegacyOptions& o : {LegacyOptions{}, LegacyOptions{.whole_model = true, .chunked = true},
                                 LegacyOptions{.prefix = "efficientnetv2-s/"}}) {
    write_legacy(path, source, o);
    const Imported got = import_weights(read_keras_weights(path), Framework::keras, b, false);
    for (const auto& [name, t] : want.tensors.tensors) EXPECT_EQ(got.tensors.at(name).bytes, t.bytes) << name;
  }
  TensorFile first_version;  // EfficientNet-B0 to B7
  for (const auto& [name, t] : source.tensors) {
    std::string older = name;
    if (const size_t at = name.find("dwconv2"); at != std::string::npos) older.erase(at + 6, 1);
    first_version.tensors[older] = t;
  }
  const Imported b0 = import_weights(first_version, Framework::keras, b, false);
  EXPECT_TRUE(b0.unused.empty());
  EXPECT_EQ(b0.tensors.at("block3a_dwconv2/kernel").bytes, want.tensors.at("block3a_dwconv2/kernel").bytes);
  write_legacy(path, source, {.without = "block2a_expand_bn/beta"});
  expect_parts(message([&] { read_keras_weights(path); }), {path, "'block2a_expand_bn/beta' is missing"});
}

// ---- the legacy layout as we write it

/// Layers that have weights, in the order of the file's list, each with the names and shapes of its own.
std::vector<std::string> listed_weights(const std::string& path) {
  h5::Lock lock;
  const h5::Handle file = h5::open_file(path);
  std::vector<std::string> all;
  for (const std::string& layer : h5::read_string_attribute(file, "layer_names")) {
    const h5::Handle group(H5Gopen2(file, layer.c_str(), H5P_DEFAULT), H5Gclose);
    for (const std::string& weight : h5::read_string_attribute(group, "weight_names")) {
      const h5::Handle data = h5::open_dataset(group, weight.c_str());
      EXPECT_TRUE(data.ok()) << layer << " " << weight;
      all.push_back(layer + ": " + weight.substr(0, weight.find(':')) + h5::shape_text(h5::shape_of(data)));
    }
  }
  return all;
}

// load_weights goes by the order of layers and weights, or by the names of layers.
TEST(KerasWriter, ListsWhatKerasListsInItsOrder) {
  test::TempDir dir;
  const std::string theirs = kFolder + "keras_v2.h5", path = dir / "ours.h5", again = dir / "again.h5";
  const TensorFile source = read_keras_weights(theirs);
  Architecture a = narrow();
  const Imported model = import_weights(source, Framework::keras, a, false);
  OrderedTensors out = export_keras_weights(model.tensors, a);
  out.file.metadata["gm_note"] = "of \"us\"\n";
  write_keras_weights(path, out.file, out.order);
  EXPECT_EQ(listed_weights(path), listed_weights(theirs));
  const TensorFile back = read_keras_weights(path);
  EXPECT_EQ(back.metadata, out.file.metadata);
  ASSERT_EQ(back.tensors.size(), source.tensors.size());
  for (const auto& [name, t] : source.tensors) EXPECT_EQ(back.at(name).bytes, t.bytes) << name;
  {
    h5::Lock lock;
    const h5::Handle file = h5::open_file(path);
    EXPECT_EQ(h5::read_string_attribute(file, "keras_version"), std::vector<std::string>{"2.15.0"});
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));  // beyond the seconds of a time stamp
  write_keras_weights(again, out.file, out.order);
  EXPECT_EQ(test::read_text(again), test::read_text(path));
}

// HDF5's older formats keep attributes below 64 KiB.
TEST(KerasWriter, ListsOfAnyLength) {
  test::TempDir dir;
  const std::string path = dir / "deep.h5";
  TensorFile file;
  std::vector<std::string> order;
  for (int i = 0; i < 6000; ++i) {
    order.push_back("layer" + std::to_string(i) + "/bias");
    file.tensors[order.back()] = StoredTensor::of(Shape{1}, {static_cast<float>(i)});
  }
  write_keras_weights(path, file, order);
  const TensorFile back = read_keras_weights(path);
  ASSERT_EQ(back.tensors.size(), order.size());
  EXPECT_EQ(back.at("layer5999/bias").floats(), std::vector<float>{5999});
}

// Keras's EfficientNet B0 to B7 call depthwise layers dwconv and begin with a layer that holds the scaling.
TEST(KerasWriter, TheFirstEfficientNetHasItsOwnNames) {
  test::TempDir dir;
  const std::string path = dir / "b0.h5", yaml = std::string(GM_SOURCE_DIR) + "/models/efficientnet_b0.yaml";
  auto exported = [](const Architecture& a) {
    ParameterTable table;
    build_network(a, table, {.loss = false});
    TensorFile model;
    for (const Parameter& p : table)
      model.tensors[p.name] =
          StoredTensor::of(p.shape, std::vector<float>(static_cast<size_t>(p.shape.numel()), 0.5f));
    return export_keras_weights(model, a);
  };
  const Architecture a = read_architecture(load_config(yaml), yaml);
  const OrderedTensors out = exported(a);
  EXPECT_EQ(std::vector<std::string>(out.order.begin(), out.order.begin() + 4),
            (std::vector<std::string>{"normalization/mean", "normalization/variance", "normalization/count",
                                      "stem_conv/kernel"}));
  EXPECT_EQ(out.file.at("block1a_dwconv/kernel").spec.shape, (Shape{3, 3, 32, 1}));
  EXPECT_FALSE(out.file.tensors.contains("block1a_dwconv2/kernel"));
  EXPECT_EQ(out.order.size(), out.file.tensors.size());
  write_keras_weights(path, out.file, out.order);
  Architecture b = a;
  b.mean = {1, 2, 3};
  const Imported back = import_weights(read_keras_weights(path), Framework::keras, b, false);
  EXPECT_TRUE(back.unused.empty());
  for (int c = 0; c < 3; ++c) {
    EXPECT_NEAR(b.mean[c], a.mean[c], 1e-4);
    EXPECT_NEAR(b.std[c], a.std[c], 1e-4);
  }
  EXPECT_EQ(exported(narrow()).order[0], "stem_conv/kernel");
}

}  // namespace
}  // namespace gm
