// gm_model import and export through the command line, up to gm_infer on the imported file.
#include <filesystem>

#include "data/csv.h"
#include "data/image.h"
#include "data/zip_file.h"
#include "layers/conventions.h"
#include "tests/tools_test_util.h"

namespace gm {
namespace {

using test::expect_failure;
using test::expect_success;
using test::Ran;
using test::run;
using test::TempDir;

const std::string kFolder = std::string(GM_SOURCE_DIR) + "/tests/golden/import/";
const std::string kConfig = kFolder + "narrow_v2.yaml";

Ran import(const std::string& weights, const std::string& from, const std::string& out,
           const std::vector<std::string>& more = {}) {
  std::vector<std::string> args{"import", weights, "--config", kConfig, "--from", from, "--out", out};
  args.insert(args.end(), more.begin(), more.end());
  return run("gm_model", args);
}

/// Makes an exported file one of the framework's own.
void forget_conventions(const std::string& path) {
  TensorFile file = read_safetensors(path);
  ASSERT_EQ(file.metadata.erase(kConventions), 1u);
  write_safetensors(path, file);
}

class ModelWeights : public testing::Test {
 protected:
  /// A model of which no convention is a framework's, and whose classes have names.
  void write_unusual_model() const {
    expect_success(import(kFolder + "torchvision_v2.safetensors", "torchvision", model,
                          {"--set", "model.padding=same", "--set", "model.batch_norm.epsilon=0.02", "--set",
                           "model.batch_norm.momentum=0.7", "--set", "model.batch_norm.unbiased=false",
                           "--set", "input.scaling={mean: [1, 2, 3], std: 255}", "--set",
                           "model.class_names=[a, 'no', '3', d e, \"f: g\"]"}));
  }

  TempDir dir;
  const std::string model = dir / "model.safetensors", out = dir / "out.safetensors",
                    back = dir / "back.safetensors";  // exported, imported again
};

TEST_F(ModelWeights, AnImportedFileNeedsNothingElse) {
  const std::string config = dir / "symmetric.yaml";
  std::string text = test::read_text(kConfig);  // what the source does wins
  text.replace(text.find("padding: same"), 13, "padding: symmetric");
  test::write_text(config, text);
  expect_success(run("gm_model", {"import", kFolder + "keras_v2.weights.h5", "--config", config, "--from",
                                  "keras", "--out", model}));
  EXPECT_FALSE(read_model(model).architecture.class_names.size());
  EXPECT_TRUE(read_model(model).architecture.same_padding);

  const TensorFile golden = read_safetensors(kFolder + "keras_v2.safetensors");
  const Shape& s = golden.at("pixels").spec.shape;
  const size_t bytes = static_cast<size_t>(s[1] * s[2] * 3);
  std::filesystem::create_directories(dir / "images");
  for (int64_t i = 0; i < s[0]; ++i) {
    const char* first = golden.at("pixels").bytes.data() + static_cast<size_t>(i) * bytes;
    write_image(
        dir / ("images/" + std::to_string(i) + ".png"),
        Image{static_cast<int>(s[2]), static_cast<int>(s[1]), std::vector<uint8_t>(first, first + bytes)});
  }
  expect_success(run(
      "gm_infer", {"--model", model, dir / "images", "--logits", "--out", dir / "p.csv", "--device", "cpu"}));
  const CsvTable csv(dir / "p.csv");
  const auto want = golden.at("logits").floats();
  ASSERT_EQ(csv.rows(), s[0]);
  for (int64_t i = 0; i < s[0]; ++i)
    for (int c = 0; c < 5; ++c)
      EXPECT_NEAR(std::stod(csv.cell(i, csv.column("z_" + std::to_string(c)))),
                  want[static_cast<size_t>(i * 5 + c)], 2e-6);
}

TEST_F(ModelWeights, WhatIsTakenForGrantedIsPrintedAndTheScalingMayBeGiven) {
  const std::string timm = dir / "timm.safetensors";
  expect_success(import(kFolder + "torchvision_v2.safetensors", "torchvision", model));
  expect_success(run("gm_model", {"export", model, "--to", "timm", "--out", timm}));
  forget_conventions(timm);
  const Ran guessed = import(timm, "timm", model);
  expect_success(guessed);
  EXPECT_NE(
      guessed.out.find("input scaling (x - 127.5) / 127.5, as timm's tf_efficientnetv2_s (--timm-model"),
      std::string::npos)
      << guessed.out;
  const Ran given =
      import(timm, "timm", model,
             {"--timm-model", "efficientnetv2_s", "--set", "input.scaling={mean: 0, std: 255}"});
  expect_success(given);
  EXPECT_EQ(given.out.find("as timm's"), std::string::npos);
  EXPECT_EQ(read_model(model).architecture.std, std::vector<double>(3, 255));
  EXPECT_FALSE(read_model(model).architecture.same_padding);
}

// What the layers of a whole model do to pixels is the network's input scaling; a file of weights does not
// tell.
TEST_F(ModelWeights, AKerasModelBringsItsScaling) {
  const std::string whole = kFolder + "nested_keras3.keras", weights = dir / "model.weights.h5",
                    said = "input.scaling={mean: 1, std: 2}";
  auto import_nested = [&](const std::string& file, const std::vector<std::string>& more) {
    std::vector<std::string> args{"import", file,    "--config", kFolder + "nested_v2.yaml",
                                  "--from", "keras", "--out",    model};
    args.insert(args.end(), more.begin(), more.end());
    return run("gm_model", args);
  };
  const Ran layers = import_nested(whole, {});
  expect_success(layers);
  EXPECT_NE(layers.out.find("as the file's layers scale"), std::string::npos) << layers.out;
  EXPECT_NEAR(read_model(model).architecture.std[0], 256, 1e-9);
  expect_success(import_nested(whole, {"--set", said}));
  EXPECT_EQ(read_model(model).architecture.std[0], 2);
  std::filesystem::remove(model);
  test::write_text(weights, read_zip_member(whole, "model.weights.h5"));
  expect_failure(import_nested(weights, {}), 1, {weights, "'rescaling'", "--set 'input.scaling="});
  EXPECT_FALSE(std::filesystem::exists(model));
  expect_success(import_nested(weights, {"--set", said}));
  EXPECT_EQ(read_model(model).architecture.classes, 5);
  const Ran alone = import(kFolder + "keras_v2.h5", "keras", model);
  EXPECT_NE(alone.out.find("the configuration's: weights alone do not tell"), std::string::npos) << alone.out;
}

TEST_F(ModelWeights, ExportAndImportGiveTheSameTensors) {
  expect_success(import(kFolder + "torchvision_v2.safetensors", "torchvision", model));
  const TensorFile want = read_safetensors(model);
  for (const std::string to : {"keras", "timm"}) {
    expect_success(run("gm_model", {"export", model, "--to", to, "--out", out}));
    const Ran r = import(out, to, back);
    expect_success(r);
    EXPECT_EQ(r.err, "");
    const TensorFile got = read_safetensors(back);
    ASSERT_EQ(got.tensors.size(), want.tensors.size());
    for (const auto& [name, t] : want.tensors) EXPECT_EQ(got.at(name).bytes, t.bytes) << name;
  }
}

TEST_F(ModelWeights, SetHasTheLastWordOnConventions) {
  write_unusual_model();
  const Architecture a = read_model(model).architecture;
  EXPECT_TRUE(a.same_padding);
  EXPECT_EQ(a.bn_epsilon, 0.02);
  EXPECT_EQ(a.bn_momentum, 0.7);
  EXPECT_FALSE(a.bn_unbiased);
  EXPECT_EQ(a.mean, (std::vector<double>{1, 2, 3}));
  EXPECT_EQ(a.class_names, (std::vector<std::string>{"a", "no", "3", "d e", "f: g"}));
}

TEST_F(ModelWeights, ExportedFilesBringTheirConventions) {
  const std::string noted = "as gm_model export noted in the file";
  write_unusual_model();
  const Architecture want = read_model(model).architecture;
  for (const auto& [to, out] : {std::pair<std::string, std::string>{"keras", dir / "out.safetensors"},
                                {"keras", dir / "out.h5"},
                                {"timm", dir / "out.safetensors"}}) {
    SCOPED_TRACE(out);
    expect_success(run("gm_model", {"export", model, "--to", to, "--out", out}));
    const Ran plain = import(out, to, back);
    expect_success(plain);
    EXPECT_NE(plain.out.find(noted + "\n"), std::string::npos) << plain.out;
    EXPECT_TRUE(read_model(back).architecture == want);
    test::expect_same_tensors(back, model);

    const Ran given = import(out, to, back,
                             {"--set", "model.padding=symmetric", "--set", "model.batch_norm.epsilon=0.5",
                              "--set", "model.class_names=[v, w, x, y, z]"});
    expect_success(given);
    EXPECT_NE(given.out.find(noted + ", but for --set"), std::string::npos) << given.out;
    const Architecture set = read_model(back).architecture;
    EXPECT_FALSE(set.same_padding);
    EXPECT_EQ(set.bn_epsilon, 0.5);
    EXPECT_EQ(set.bn_momentum, want.bn_momentum);
    EXPECT_EQ(set.std, want.std);
    EXPECT_EQ(set.class_names[4], "z");
  }
}

// Its scaling lies in the file twice, as noted and, less exactly, in a layer.
TEST_F(ModelWeights, NotedScalingIsExact) {
  const std::string out = dir / "out.h5", config = dir / "b.yaml";
  std::string stages;
  for (const char* block : {"3, stride: 1, expand: 1", "3, stride: 2, expand: 6", "5, stride: 2, expand: 6",
                            "3, stride: 2, expand: 6", "5, stride: 1, expand: 6", "5, stride: 2, expand: 6",
                            "3, stride: 1, expand: 6"})
    stages += std::string("    - {filters: 8, kernel: ") + block + "}\n";
  test::write_text(config,
                   "model:\n  classes: 3\n  se: 0.25\n  stem: {filters: 8}\n  stages:\n" + stages +
                       "  head: {filters: 8}\ninput: {size: 32, scaling: {mean: 100.1, std: 77.7}}\n");
  const Architecture a = read_architecture(load_config(config), config);
  auto device = open_device("cpu", {.threads = 1});
  ParameterTable table;
  build_network(a, table, {.loss = false});
  Weights weights(*device, table, false, false);
  weights.initialize(table, 3);
  TensorFile file = test::store_weights(table, weights);
  file.metadata = model_metadata(a, {});
  write_safetensors(model, file);
  expect_success(run("gm_model", {"export", model, "--to", "keras", "--out", out}));
  const Ran r = run("gm_model", {"import", out, "--config", config, "--from", "keras", "--out", back});
  expect_success(r);
  EXPECT_EQ(r.err, "");
  EXPECT_EQ(read_model(back).architecture.mean, a.mean);
  EXPECT_EQ(read_model(back).architecture.std, a.std);
  test::expect_same_tensors(back, model);
}

TEST_F(ModelWeights, ExportsAreWrittenWholeOrNotAtAll) {
  const std::string out = dir / "full.h5";
  write_unusual_model();
  expect_failure(run("gm_model", {"export", model, "--to", "keras", "--out", out}, {.file_limit = 20000}), 1,
                 {out, "cannot write"});
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir / "."), {}), 1);
  expect_failure(run("gm_model", {"export", model, "--to", "keras", "--out", dir / "no/x.h5"}), 1,
                 {"no/x.h5"});
}

// A timm name is often given by habit; it must not change what the network computes.
TEST_F(ModelWeights, ATimmNameMayOnlyRepeatNotedConventions) {
  const std::string timm = dir / "timm.safetensors";
  write_unusual_model();
  expect_success(run("gm_model", {"export", model, "--to", "timm", "--out", timm}));
  expect_failure(import(timm, "timm", back, {"--timm-model", "efficientnetv2_s"}), 1,
                 {timm, "--timm-model efficientnetv2_s", "padding same", "padding symmetric", "--set"});
  EXPECT_FALSE(std::filesystem::exists(back));
  expect_success(import(timm, "timm", back,
                        {"--timm-model", "tf_efficientnetv2_s", "--set", "model.batch_norm.epsilon=0.02",
                         "--set", "input.scaling={mean: [1, 2, 3], std: 255}"}));
  EXPECT_TRUE(read_model(back).architecture == read_model(model).architecture);
}

TEST_F(ModelWeights, NotedConventionsAreChecked) {
  write_unusual_model();
  expect_success(run("gm_model", {"export", model, "--to", "keras", "--out", out}));
  TensorFile file = read_safetensors(out);
  const std::string good = file.metadata.at(kConventions);
  auto expect_error = [&](const std::string& text, const std::string& part) {
    file.metadata[kConventions] = text;
    write_safetensors(out, file);
    expect_failure(import(out, "keras", back), 1, {out, kConventions, part});
  };
  expect_error("{[", "YAML");
  expect_error("same", "model.padding is missing");
  expect_error("model: {padding: same}", "model.batch_norm is missing");
  std::string odd = good;
  expect_error(odd.replace(odd.find("padding: same"), 13, "padding: cyclic"), "model.padding");
}

TEST_F(ModelWeights, ClassesThatAreSaidAndAreNotTheFiles) {
  write_unusual_model();
  expect_success(run("gm_model", {"export", model, "--to", "keras", "--out", out}));
  expect_failure(import(out, "keras", back, {"--set", "model.classes=7"}), 1,
                 {out, "has 5 classes", "--set says 7"});
  EXPECT_FALSE(std::filesystem::exists(back));
  expect_success(import(out, "keras", back, {"--set", "model.classes=5"}));
  TensorFile file = read_safetensors(out);  // without the classifier there is nothing to contradict
  file.tensors.erase("predictions/kernel");
  file.tensors.erase("predictions/bias");
  write_safetensors(out, file);
  for (const int classes : {5, 7}) {
    expect_success(import(out, "keras", back,
                          {"--allow-missing-head", "--set", "model.classes=" + std::to_string(classes)}));
    EXPECT_EQ(read_model(back).architecture.classes, classes);
    EXPECT_TRUE(read_model(back).architecture.class_names.empty());
  }
}

TEST_F(ModelWeights, QuietLeavesErrorsAndWarnings) {
  const Ran warned = import(kFolder + "torchvision_v2.safetensors", "torchvision", model, {"--quiet"});
  expect_success(warned);
  EXPECT_EQ(warned.out, "");
  EXPECT_NE(warned.err.find("no place in the network"), std::string::npos) << warned.err;
  const Ran exported = run("gm_model", {"export", model, "--to", "keras", "--out", out, "--quiet"});
  expect_success(exported);
  EXPECT_EQ(exported.out + exported.err, "");
  TensorFile headless = read_safetensors(out);
  headless.tensors.erase("predictions/kernel");
  headless.tensors.erase("predictions/bias");
  write_safetensors(out, headless);
  const Ran fresh = import(out, "keras", model, {"--quiet", "--allow-missing-head"});
  expect_success(fresh);
  EXPECT_EQ(fresh.out + fresh.err, "");
  expect_failure(import(out, "keras", model, {"--quiet"}), 1, {out, "--allow-missing-head"});
}

TEST_F(ModelWeights, FilesOfTorchSaveSayHowToConvertThem) {
  const std::string archive = dir / "model.pth", pickle = dir / "old.pt";
  test::write_text(archive, "PK\3\4 archive/data.pkl");
  test::write_text(pickle, std::string("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15));
  for (const std::string from : {"timm", "torchvision", "keras"})
    for (const std::string& file : {archive, pickle})
      expect_failure(import(file, from, out), 1, {file, "torch.load", "safetensors.torch.save_file"});
  const std::string keras = kFolder + "nested_keras3.keras";  // an archive too
  expect_failure(import(keras, "timm", out), 1, {keras, "not a safetensors file"});

  // A header of 0x280 bytes is no pickle.
  const std::string odd = dir / "odd.safetensors";
  test::write_text(odd, std::string("\x80\x02\0\0\0\0\0\0{", 9) + std::string(639, ' '));
  expect_failure(import(odd, "timm", out), 1, {odd, "not a safetensors file"});
}

TEST_F(ModelWeights, WrongFilesAndOptions) {
  const std::string keras = kFolder + "keras_v2.h5";
  const Ran warned = import(kFolder + "torchvision_v2.safetensors", "torchvision", out);
  EXPECT_NE(warned.err.find("2 tensors have no place in the network: logits, pixels"), std::string::npos);
  std::filesystem::remove(out);
  expect_failure(import(keras, "timm", out), 1, {keras, "not a safetensors file"});
  expect_failure(import(kConfig, "keras", out), 1, {kConfig, "not an HDF5 file"});
  expect_failure(import(kFolder + "torchvision_v2.safetensors", "timm", out), 1,
                 {"torchvision_v2.safetensors", "conv_stem.weight", "missing"});
  expect_failure(import(keras, "keras", out, {"--set", "model.se=0.5"}), 1, {keras, "se_reduce", "shape"});
  expect_failure(
      import(kFolder + "torchvision_v2.safetensors", "timm", out, {"--timm-model", "efficentnet_b0"}), 1,
      {"efficentnet_b0"});
  expect_failure(import(keras, "keras", out, {"--timm-model", "efficientnetv2_s"}), 1, {"--timm-model"});
  expect_failure(import(keras, "caffe", out), 2, {"--from"});
  expect_failure(run("gm_model", {"import", keras, "--from", "keras"}), 2, {"--"});
  expect_failure(run("gm_model", {"export", keras, "--to", "keras", "--out", out}), 1, {keras});
  expect_failure(run("gm_model", {"--set", "model.se=0", "export", keras, "--to", "keras", "--out", out}), 2,
                 {"--set before export"});
  expect_failure(run("gm_model", {kConfig, "export", keras, "--to", "keras", "--out", out}), 2,
                 {"config before export"});
  for (const std::string name : {"out.hdf5", "out.keras", "out.weights.h5", "out"})
    expect_failure(run("gm_model", {"export", keras, "--to", "keras", "--out", dir / name}), 2,
                   {name, ".safetensors", ".h5"});
  expect_failure(run("gm_model", {"export", keras, "--to", "timm", "--out", dir / "out.h5"}), 2,
                 {"out.h5", ".safetensors", "Keras"});
  EXPECT_FALSE(std::filesystem::exists(out));

  const Ran help = run("gm_model", {"--help"});
  EXPECT_NE(help.out.find("import"), std::string::npos);
  EXPECT_NE(help.out.find("export"), std::string::npos);
  expect_success(run("gm_model", {kConfig, "--json"}));
}

}  // namespace
}  // namespace gm
