// Imported weights give the outputs of the framework they come from, under its names and conventions; a file
// written by torchvision (golden/make_torchvision_golden.py), one by Keras (golden/make_keras_golden.py).
#include "layers/import.h"

#include "tests/data_test_util.h"
#include "tests/imported_networks.h"

namespace gm {
namespace {

using test::expect_parts;
using test::kImportFolder;
using test::logits_error;
using test::narrow_v2;
using test::one_line_error;

TEST(Import, TorchvisionFileGivesItsLogits) {
  Architecture a = narrow_v2();
  adopt_conventions(a, Framework::torchvision);
  const TensorFile golden = read_safetensors(kImportFolder + "torchvision_v2.safetensors");
  const Imported imported = import_weights(golden, Framework::torchvision, a, false);
  EXPECT_EQ(imported.unused, (std::vector<std::string>{"logits", "pixels"}));
  EXPECT_LT(logits_error(a, imported.tensors, golden), 1e-5);
  Architecture tensorflow = a;
  tensorflow.same_padding = true;  // the odd size tells the two paddings apart
  EXPECT_GT(logits_error(tensorflow, imported.tensors, golden), 1e-3);
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

/// Every parameter of the network, each element another number.
TensorFile counted(const Architecture& a) {
  ParameterTable table;
  build_network(a, table, {.loss = false});
  TensorFile model;
  float x = 0;
  for (const Parameter& p : table) {
    std::vector<float> values(static_cast<size_t>(p.shape.numel()));
    for (float& v : values) v = x++;
    model.tensors[p.name] = StoredTensor::of(p.shape, values);
  }
  return model;
}

TEST(Import, ExportIsTheInverse) {
  const Architecture a = rich();
  const TensorFile model = counted(a);
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
    Architecture a = narrow_v2();
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
    Architecture a = narrow_v2();
    adopt_conventions(a, Framework::timm, name);
    return a.mean == std::vector<double>(3, 127.5) && a.std == a.mean;
  };
  for (const char* name :
       {"tf_efficientnetv2_m", "tf_efficientnetv2_xl.in21k", "tf_efficientnetv2_b3",
        "tf_efficientnetv2_b3.in21k_ft_in1k", "tf_efficientnet_b0.ap_in1k",
        "efficientnet_b0.ra4_e3600_r224_in1k", "efficientnet_b1", "efficientnet_b2_pruned.in1k",
        "tf_efficientnet_lite0.in1k", "tf_efficientnet_es", "tf_efficientnet_b8"})
    EXPECT_TRUE(halves(name)) << name;
  for (const char* name :
       {"tf_efficientnetv2_b3.in1k", "tf_efficientnetv2_b0", "efficientnet_b0", "efficientnet_b0.ra_in1k",
        "efficientnet_b1.ft_in1k", "tf_efficientnet_b0.ns_jft_in1k", "mobilenetv2_100"})
    EXPECT_FALSE(halves(name)) << name;
  for (const char* name : {"efficentnet_b0", "tf_resnet50"})
    expect_parts(one_line_error([&] { halves(name); }), {std::string("'") + name + "'"});
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
  Architecture plain = narrow_v2();
  const Imported network = import_weights(read_safetensors(kImportFolder + "torchvision_v2.safetensors"),
                                          Framework::torchvision, plain, false);
  const TensorFile keras = export_weights(network.tensors, plain, Framework::keras);
  auto scaling = [&](const std::vector<float>& mean, const std::vector<float>& variance, bool numbered) {
    TensorFile file = keras;
    file.tensors[numbered ? "normalization/0" : "normalization/mean"] = StoredTensor::of({3}, mean);
    file.tensors[numbered ? "normalization/1" : "normalization/variance"] = StoredTensor::of({3}, variance);
    Architecture a = narrow_v2();
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
  const TensorFile good = read_safetensors(kImportFolder + "torchvision_v2.safetensors");
  auto import = [&](const TensorFile& file, bool allow = false, Architecture a = narrow_v2()) {
    return import_weights(file, Framework::torchvision, a, allow);
  };
  TensorFile bad = good;
  bad.tensors.erase("features.2.1.block.0.1.running_mean");
  expect_parts(one_line_error([&] { import(bad, true); }),
               {"torchvision_v2.safetensors", "'features.2.1.block.0.1.running_mean' is missing"});
  bad = good;
  bad.tensors["features.0.0.weight"] = StoredTensor::of({8, 3, 3, 1}, std::vector<float>(72));
  expect_parts(one_line_error([&] { import(bad); }), {"features.0.0.weight", "(8,3,3,1)", "(8,3,3,3)"});

  bad = good;  // without its classifier
  bad.tensors.erase("classifier.1.weight");
  bad.tensors.erase("classifier.1.bias");
  expect_parts(one_line_error([&] { import(bad); }), {"classifier.1.weight", "--allow-missing-head"});
  const Imported headless = import(bad, true);
  EXPECT_EQ(headless.fresh, (std::vector<std::string>{"predictions/kernel", "predictions/bias"}));
  EXPECT_EQ(headless.tensors.at("predictions/kernel").spec.shape, (Shape{5, 32}));
  EXPECT_NE(headless.tensors.at("predictions/kernel").floats()[0], 0);
  Architecture with_attention = narrow_v2();
  with_attention.attention.type = AttentionType::cbam;
  EXPECT_EQ(import(good, true, with_attention).fresh.size(), 5u);
  expect_parts(one_line_error([&] { import(good, false, with_attention); }), {"cbam_"});
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

Architecture shipped(const std::string& name, const std::vector<std::string>& sets = {}) {
  const std::string file = std::string(GM_SOURCE_DIR) + "/models/" + name + ".yaml";
  return read_architecture(load_config(file, sets), file);
}

// keras.applications, and what PyTorch calls momentum is one minus ours.
TEST(Import, BatchNormFollowsTheSource) {
  struct Norm {
    double momentum, epsilon;
    bool unbiased;
    bool operator==(const Norm&) const = default;
  };
  auto adopted = [](Architecture a, Framework f) {
    a.bn_momentum = 0.5, a.bn_epsilon = 0.5, a.bn_unbiased = f == Framework::keras;
    adopt_conventions(a, f, "");
    return Norm{a.bn_momentum, a.bn_epsilon, a.bn_unbiased};
  };
  const Architecture v2 = shipped("effv2s"), b0 = shipped("efficientnet_b0"), mobile = shipped("mobilenetv2");
  EXPECT_EQ(adopted(v2, Framework::keras), (Norm{0.9, 1e-3, false}));
  EXPECT_EQ(adopted(b0, Framework::keras), (Norm{0.99, 1e-3, false}));
  EXPECT_EQ(adopted(mobile, Framework::keras), (Norm{0.999, 1e-3, false}));
  EXPECT_EQ(adopted(v2, Framework::torchvision), (Norm{0.9, 1e-3, true}));
  EXPECT_EQ(adopted(b0, Framework::torchvision), (Norm{0.9, 1e-5, true}));
  EXPECT_EQ(adopted(mobile, Framework::torchvision), (Norm{0.9, 1e-5, true}));
  EXPECT_EQ(adopted(v2, Framework::timm), (Norm{0.9, 1e-3, true}));
}

TEST(Import, BookkeepingOfTheFrameworksIsNoLeftover) {
  const Architecture a = narrow_v2();
  TensorFile file = export_weights(counted(a), a, Framework::timm);
  file.tensors["bn1.num_batches_tracked"] = StoredTensor::of(Shape{}, {7});
  file.tensors["seed_generator_3/seed_generator_state"] = StoredTensor::of(Shape{2}, {1, 2});
  file.tensors["odd"] = StoredTensor::of(Shape{}, {7});
  Architecture b = a;
  EXPECT_EQ(import_weights(file, Framework::timm, b, false).unused, std::vector<std::string>{"odd"});
}

TEST(Import, ClassesAreTheFilesWithinReason) {
  auto imported = [](int classes) {
    Architecture theirs = narrow_v2(), ours = theirs;
    theirs.classes = classes;
    ours.class_names = {"a", "b", "c", "d", "e"};
    ours.classes = 5;
    TensorFile file = export_weights(counted(theirs), theirs, Framework::keras);
    file.path = "theirs.h5";
    import_weights(file, Framework::keras, ours, false);
    return std::pair{ours.classes, ours.class_names.size()};
  };
  EXPECT_EQ(imported(5), std::pair(5, size_t{5}));
  EXPECT_EQ(imported(4), std::pair(4, size_t{0})) << "names of other classes are none";
  for (const int impossible : {1, 10001})
    expect_parts(one_line_error([&] { imported(impossible); }),
                 {"theirs.h5", "'predictions/bias': " + std::to_string(impossible) + " classes"});
}

TEST(Import, WholeNumbersAreNoWeights) {
  Architecture a = narrow_v2();
  TensorFile file = export_weights(counted(a), a, Framework::timm);
  file.tensors["bn1.weight"].spec.dtype = DType::i32;
  expect_parts(one_line_error([&] { import_weights(file, Framework::timm, a, false); }),
               {"'bn1.weight' holds no floating-point numbers"});
}

TEST(Import, OnlyTheNetworksOwnWeightsAreExported) {
  const Architecture a = narrow_v2();
  TensorFile file = counted(a);
  file.path = "model.safetensors";
  file.tensors["stem_bn/gamma"] = StoredTensor::of(Shape{3}, {1, 2, 3});
  expect_parts(one_line_error([&] { export_weights(file, a, Framework::timm); }),
               {"model.safetensors", "'stem_bn/gamma' has shape (3)", "the network needs (8)"});
}

TEST(Import, FreshLayersFollowTheSeed) {
  const Architecture a = narrow_v2();
  TensorFile file = export_weights(counted(a), a, Framework::timm);
  file.tensors.erase("classifier.weight");
  auto fresh = [&](uint64_t seed) {
    Architecture b = a;
    return import_weights(file, Framework::timm, b, true, seed).tensors.at("predictions/kernel").bytes;
  };
  EXPECT_EQ(fresh(3), fresh(3));
  EXPECT_NE(fresh(3), fresh(4));
}

// Squeeze-and-excitation of dense layers, as networks of the frameworks' users have it.
TEST(Import, SqueezeMayBeDense) {
  const Architecture a = rich();
  const TensorFile model = counted(a);
  for (const Framework f : {Framework::keras, Framework::timm}) {
    TensorFile file = export_weights(model, a, f);
    int flattened = 0;
    for (auto& [name, t] : file.tensors) {
      Shape& s = t.spec.shape;
      if ((name.find("se_") == std::string::npos && name.find("se.") == std::string::npos) || s.rank != 4)
        continue;
      s = f == Framework::keras ? Shape{s[2], s[3]} : Shape{s[0], s[1]};
      ++flattened;
    }
    EXPECT_GT(flattened, 0);
    Architecture b = a;
    const Imported back = import_weights(file, f, b, false);
    for (const auto& [name, t] : model.tensors) EXPECT_EQ(back.tensors.at(name).bytes, t.bytes) << name;
  }
}

TEST(Import, AttentionMayBeOfConvolutions) {
  const Architecture a = rich();
  const TensorFile model = counted(a);
  TensorFile file = export_weights(model, a, Framework::keras);
  int widened = 0;
  for (auto& [name, t] : file.tensors)
    if (Shape& s = t.spec.shape; name.starts_with("cbam_") && name.ends_with("kernel") && s.rank == 2)
      s = Shape{1, 1, s[0], s[1]}, ++widened;
  EXPECT_GT(widened, 0);
  Architecture b = a;
  const Imported back = import_weights(file, Framework::keras, b, false);
  for (const auto& [name, t] : model.tensors) EXPECT_EQ(back.tensors.at(name).bytes, t.bytes) << name;
}

TEST(Import, StagesMayHaveTwoDigits) {
  std::string stages;
  for (int s = 0; s < 11; ++s) stages += "    - {expand: " + std::to_string(1 + s % 2) + ", filters: 8}\n";
  const Architecture a =
      read_architecture(parse_yaml("model:\n  classes: 3\n  stem: {filters: 8}\n  stages:\n" + stages +
                                       "  head: {filters: 8}\ninput: {size: 32}\n",
                                   "deep"),
                        "deep");
  const TensorFile model = counted(a), timm = export_weights(model, a, Framework::timm);
  EXPECT_EQ(timm.tensors.size(), model.tensors.size());
  EXPECT_EQ(timm.at("blocks.10.0.conv_dw.weight").spec.shape, (Shape{8, 1, 3, 3}));
  EXPECT_EQ(timm.at("blocks.9.0.conv_pw.weight").spec.shape, (Shape{16, 8, 1, 1}));
}

// Names of other networks are taken for a family's only where all of the network is.
TEST(Import, NamesOfAFamilyAreForItsNetworksAlone) {
  auto first = [](const std::vector<std::string>& sets) {
    const Architecture a = shipped("efficientnet_b0", sets);
    return export_keras_weights(counted(a), a).order.at(0);
  };
  EXPECT_EQ(first({}), "normalization/mean");
  EXPECT_EQ(first({"model.se=0"}), "stem_conv/kernel");
  EXPECT_EQ(first({"model.activation=relu"}), "stem_conv/kernel");
  Architecture fused = rich();
  fused.act = Act::relu6;
  EXPECT_TRUE(export_weights(counted(fused), fused, Framework::keras).tensors.contains("stem_conv/kernel"));
}

TEST(Import, TheLayerThatScalesHoldsEveryChannel) {
  const Architecture a = shipped("efficientnet_b0", {"input.scaling={mean: [1, 2, 3], std: [4, 5, 6]}"});
  const OrderedTensors out = export_keras_weights(counted(a), a);
  Architecture b = a;
  b.mean = b.std = {9, 9, 9};
  import_weights(out.file, Framework::keras, b, false);
  for (int c = 0; c < 3; ++c) {
    EXPECT_NEAR(b.mean[c], a.mean[c], 1e-4);
    EXPECT_NEAR(b.std[c], a.std[c], 1e-4);
  }
}

// Of Keras the layers are told, of all others the tensors.
TEST(Import, WhatHasNoPlaceIsToldWithWhatIsMissing) {
  Architecture a = narrow_v2();
  TensorFile file = export_weights(counted(a), a, Framework::keras);
  file.tensors.erase("stem_bn/gamma");
  auto error = [&](int others) {
    TensorFile with = file;
    for (int k = 0; k < others; ++k)
      with.tensors["layer" + std::to_string(k) + "/kernel"] = StoredTensor::of(Shape{}, {0});
    Architecture b = a;
    return one_line_error([&] { import_weights(with, Framework::keras, b, false); });
  };
  EXPECT_TRUE(error(0).ends_with("'stem_bn/gamma' is missing")) << error(0);
  expect_parts(error(1), {"is missing, while 'layer0' has no place"});
  expect_parts(error(5), {"'layer3', 'layer4' have no place"});
  expect_parts(error(6), {"'layer3', 'layer4' and others have no place"});
}

// An odd number of channels, or none, is no normalization of pixels.
TEST(Import, OtherNormalizationsAreLeftAlone) {
  Architecture a = narrow_v2();
  TensorFile file = export_weights(counted(a), a, Framework::keras);
  file.tensors["normalization/mean"] = StoredTensor::of(Shape{3}, {1, 2, 3});
  file.tensors["normalization/variance"] = StoredTensor::of(Shape{1}, {4});
  const std::vector<double> mean = a.mean;
  EXPECT_EQ(import_weights(file, Framework::keras, a, false).unused,
            (std::vector<std::string>{"normalization/mean", "normalization/variance"}));
  EXPECT_EQ(a.mean, mean);
}

}  // namespace
}  // namespace gm
