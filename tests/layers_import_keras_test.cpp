// Networks from Keras's files: every format, models around a backbone, layers without names, pixels scaled by
// the model's own layers (golden/make_keras_golden.py, golden/make_nested_golden.py).
#include <map>

#include "data/keras_config.h"
#include "data/keras_weights.h"
#include "data/zip_file.h"
#include "tests/data_test_util.h"
#include "tests/imported_networks.h"

namespace gm {
namespace {

using test::expect_parts;
using test::kImportFolder;
using test::logits_error;
using test::narrow_v2;
using test::one_line_error;

class KerasFile : public testing::TestWithParam<const char*> {};

TEST_P(KerasFile, GivesKerasLogits) {
  Architecture a = narrow_v2();
  a.same_padding = false;  // what the source does wins
  a.bn_epsilon = 0.1;
  a.classes = 9;
  adopt_conventions(a, Framework::keras);
  const Imported imported =
      import_weights(read_keras_weights(kImportFolder + GetParam()), Framework::keras, a, false);
  EXPECT_EQ(a.classes, 5);
  EXPECT_TRUE(imported.unused.empty());
  EXPECT_LT(logits_error(a, imported.tensors, read_safetensors(kImportFolder + "keras_v2.safetensors")),
            1e-5);
}
INSTANTIATE_TEST_SUITE_P(Formats, KerasFile, testing::Values("keras_v2.h5", "keras_v2.weights.h5"));

Architecture nested() {
  Architecture a = read_architecture(load_config(kImportFolder + "nested_v2.yaml"), "nested_v2.yaml");
  adopt_conventions(a, Framework::keras);
  return a;
}

// A backbone as one layer of a model, behind layers that scale and before CBAM and a head with names of their
// own.
class KerasAroundABackbone : public testing::TestWithParam<const char*> {
 protected:
  std::string file(const std::string& extension) const { return kImportFolder + GetParam() + extension; }
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
  EXPECT_LT(logits_error(a, imported.tensors, golden()), 1e-5);
  a.mean = {128, 128, 128}, a.std = {128, 128, 128};
  EXPECT_GT(logits_error(a, imported.tensors, golden()), 1e-2);
}

// model.save_weights writes what lies in the archive: layers by class and number, anew in each model.
TEST_P(KerasAroundABackbone, WeightsAloneGiveThemOnceTheScalingIsSaid) {
  test::TempDir dir;
  const std::string path = dir / "model.weights.h5";
  test::write_text(path, read_zip_member(file(".keras"), "model.weights.h5"));
  TensorFile source = read_keras_weights(path);
  EXPECT_FALSE(source.tensors.contains("block2c_dwconv2/0"));
  expect_parts(one_line_error([&] { take_pixel_scaling(source); }),
               {path, "'rescaling'", "input.scaling", ".keras"});
  Architecture a = nested();
  a.mean = {250, 512. / 3, 108.8}, a.std = {256, 512. / 3, 102.4};
  const Imported imported = import_weights(source, Framework::keras, a, false);
  EXPECT_TRUE(imported.unused.empty());
  EXPECT_LT(logits_error(a, imported.tensors, golden()), 1e-5);
}

TEST_P(KerasAroundABackbone, AnotherHeadIsNotTakenForOurs) {
  const TensorFile source = read_keras_weights(file(".keras"));
  Architecture a = nested();
  a.hidden = {};  // features would do as predictions of 12 classes
  expect_parts(one_line_error([&] { import_weights(source, Framework::keras, a, false); }),
               {"'features', 'galaxy_class'", "no place", "--allow-missing-head"});
  EXPECT_EQ(a.classes, 3);
}
INSTANTIATE_TEST_SUITE_P(Versions, KerasAroundABackbone, testing::Values("nested_keras2", "nested_keras3"));

TEST(Import, LayersThatKerasNumberedAreTakenInOrder) {
  const Architecture a = narrow_v2();
  TensorFile source = read_keras_weights(kImportFolder + "keras_v2.h5"), numbered;
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

/// A model whose backbone begins with a rescaling to 2 x + 1, behind `layers`.
TensorFile model(const std::string& layers) {
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
}

/// Of a channel, before the backbone's own.
void expect(const std::string& layers, double scale, double offset) {
  TensorFile file = model(layers);
  const auto s = take_pixel_scaling(file);
  ASSERT_TRUE(s) << layers;
  EXPECT_NEAR(s->std[1], 1 / (2 * scale), 1e-12) << layers;
  EXPECT_NEAR(s->mean[1], -(2 * offset + 1) / (2 * scale), 1e-12) << layers;
}

// What stands before the first convolution, in the words of both versions of Keras.
TEST(Import, LayersBeforeTheFirstConvolutionScale) {
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
            {"class_name": "Subtract", "config": {},
             "inbound_nodes": [{"args": [{"class_name": "t"}, 1.0]}]})",
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
    expect_parts(one_line_error([&] { take_pixel_scaling(file); }), {"model.h5", "'odd'", "input.scaling"});
  }
  TensorFile broken = model("{]");
  expect_parts(one_line_error([&] { take_pixel_scaling(broken); }), {"model.h5", "not JSON"});
  TensorFile nothing = model(R"({"class_name": "Rescaling", "config": {"scale": 0}})");
  expect_parts(one_line_error([&] { take_pixel_scaling(nothing); }), {"model.h5", "nothing of the pixels"});
}

TEST(Import, EveryWordForArithmeticIsKnown) {
  for (const auto& [words, scale, offset] : {std::tuple{std::pair{"math.truediv", "TrueDivide"}, 0.25, 0.},
                                             {std::pair{"math.divide", "Divide"}, 0.25, 0.},
                                             {std::pair{"math.multiply", "Multiply"}, 4., 0.},
                                             {std::pair{"math.subtract", "Subtract"}, 1., -4.},
                                             {std::pair{"math.add", "Add"}, 1., 4.},
                                             {std::pair{"__operators__.add", "Add"}, 1., 4.}}) {
    expect(std::string(R"({"class_name": "TFOpLambda", "config": {"function": ")") + words.first +
               R"("}, "inbound_nodes": [["x", 0, 0, {"y": 4.0}]]})",
           scale, offset);
    expect(std::string(R"({"class_name": ")") + words.second +
               R"(", "config": {}, "inbound_nodes": [{"args": [{}, 4.0]}]})",
           scale, offset);
  }
  expect(
      R"({"class_name": "TFOpLambda", "config": {"function": "cast"}}, {"class_name": "Cast", "config": {}})",
      1, 0);
}

TEST(Import, OddLayersBeforeTheFirstConvolutionAreRefused) {
  for (
      const char* unknown :
      {R"({"class_name": "Normalization", "config": {"name": "odd", "mean": 1, "variance": 4, "invert": 1}})",
       R"({"class_name": "Rescaling", "config": {"name": "odd", "scale": [1, 2]}})",
       R"({"class_name": "Multiply", "config": {"name": "odd"},
            "inbound_nodes": [{"args": [{}, 4.0]}, {"args": [{}, 4.0]}]})"}) {
    TensorFile file = model(unknown);
    expect_parts(one_line_error([&] { take_pixel_scaling(file); }), {"model.h5", "'odd'", "input.scaling"});
  }
  TensorFile endless = model(R"({"class_name": "Rescaling", "config": {"scale": 1e308}})");
  expect_parts(one_line_error([&] { take_pixel_scaling(endless); }), {"model.h5", "nothing of the pixels"});
  std::string deep = R"({"class_name": "Flatten", "config": {}})";
  for (int k = 0; k < 2 * kKerasDepth; ++k)
    deep = R"({"class_name": "Functional", "config": {"layers": [)" + deep + "]}}";
  TensorFile nested = model(deep);
  expect_parts(one_line_error([&] { take_pixel_scaling(nested); }), {"model.h5", "nested too deeply"});
}

// Keras divides by no less than 1e-7, also where a channel is constant.
TEST(Import, ConstantChannelsAreNotDividedByZero) {
  expect(R"({"class_name": "Normalization", "config": {"mean": 0, "variance": [1, 0, 1]}})", 1e7, 0);
}

TEST(Import, AdaptedStatisticsMayBeNumbered) {
  TensorFile file = model(R"({"class_name": "Normalization", "config": {"name": "n"}})");
  file.tensors["n/0"] = StoredTensor::of(Shape{3}, {1, 2, 3});
  file.tensors["n/1"] = StoredTensor::of(Shape{3}, {4, 16, 4});
  file.tensors["n/2"] = StoredTensor::of(Shape{}, {0});
  const auto s = take_pixel_scaling(file);
  ASSERT_TRUE(s);
  EXPECT_NEAR(s->std[1], 2, 1e-12);
  EXPECT_TRUE(file.tensors.empty()) << "all three are the layer's";
}

TEST(Import, ALayerTakenByItsNumberSaysHowToKeepNames) {
  Architecture a = narrow_v2();
  TensorFile source = read_keras_weights(kImportFolder + "keras_v2.h5"), numbered;
  numbered.path = "numbered.h5";
  for (const auto& [name, t] : source.tensors)
    numbered.tensors[name.starts_with("predictions/") ? "dense_4" + name.substr(11) : name] = t;
  numbered.tensors["dense_4/kernel"] = StoredTensor::of(Shape{7, 5}, std::vector<float>(35));
  expect_parts(one_line_error([&] { import_weights(numbered, Framework::keras, a, false); }),
               {"numbered.h5", "'predictions/kernel' has shape (7,5)", "numbers layers", "model.keras"});
}

}  // namespace
}  // namespace gm
