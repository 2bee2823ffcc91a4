// gm_model import and export through the command line, up to gm_infer on the imported file.
#include <filesystem>

#include "data/csv.h"
#include "data/image.h"
#include "data/zip_file.h"
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

TEST(ModelWeights, AnImportedFileNeedsNothingElse) {
  TempDir dir;
  const std::string model = dir / "model.safetensors";
  expect_success(
      import(kFolder + "keras_v2.weights.h5", "keras", model, {"--set", "model.padding=symmetric"}));
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

TEST(ModelWeights, WhatIsTakenForGrantedIsPrintedAndTheScalingMayBeGiven) {
  TempDir dir;
  const std::string model = dir / "model.safetensors", timm = dir / "timm.safetensors";
  expect_success(import(kFolder + "torchvision_v2.safetensors", "torchvision", model));
  expect_success(run("gm_model", {"export", model, "--to", "timm", "--out", timm}));
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
TEST(ModelWeights, AKerasModelBringsItsScaling) {
  TempDir dir;
  const std::string model = dir / "model.safetensors", whole = kFolder + "nested_keras3.keras",
                    weights = dir / "model.weights.h5", said = "input.scaling={mean: 1, std: 2}";
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

TEST(ModelWeights, ExportAndImportGiveTheSameTensors) {
  TempDir dir;
  const std::string model = dir / "model.safetensors", out = dir / "out.safetensors",
                    back = dir / "back.safetensors";
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

TEST(ModelWeights, WrongFilesAndOptions) {
  TempDir dir;
  const std::string out = dir / "out.safetensors", keras = kFolder + "keras_v2.h5";
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
  expect_failure(run("gm_model", {"export", keras, "--to", "keras", "--out", dir / "out.h5"}), 2,
                 {"out.h5", ".safetensors"});
  EXPECT_FALSE(std::filesystem::exists(out));

  const Ran help = run("gm_model", {"--help"});
  EXPECT_NE(help.out.find("import"), std::string::npos);
  EXPECT_NE(help.out.find("export"), std::string::npos);
  expect_success(run("gm_model", {kConfig, "--json"}));
}

}  // namespace
}  // namespace gm
