// The command line on bad input: one clear line, the right exit code, nothing half written.
#include "data/csv.h"
#include "data/hdf5_util.h"
#include "data/image.h"
#include "tests/tools_test_util.h"

namespace gm {
namespace {

namespace fs = std::filesystem;
using test::expect_failure;
using test::expect_success;
using test::gradient;
using test::png_bytes;
using test::Ran;
using test::read_text;
using test::run;
using test::TempDir;
using test::write_text;

/// A folder with a tiny model, a configuration and a catalog of 20 labelled images, four a class.
class Cli : public testing::Test {
 protected:
  Cli() {
    test::write_tiny_model(model);
    write_text(config, test::tiny_config());
    fs::create_directories(dir / "set/images");
    std::string csv = "id_str,file_loc,label\n";
    for (int i = 0; i < 20; ++i) {
      const std::string name = "images/g" + std::to_string(i) + ".png";
      write_image(dir / ("set/" + name), gradient(32, 32, i * 10));
      csv += "g" + std::to_string(i) + "," + name + "," + std::to_string(i % 5) + "\n";
    }
    write_text(dir / "set/labels.csv", csv);
    write_image(good, gradient(32, 32));
  }
  Ran infer(std::vector<std::string> args, const test::Process::Options& options = {}) {
    args.insert(args.begin(), {"--model", model, "--quiet", "--device", "cpu", "--threads", "1"});
    return run("gm_infer", args, options);
  }
  Ran train(std::vector<std::string> args, const test::Process::Options& options = {}) {
    args.insert(args.begin(), {config, "--out", out, "--quiet"});
    return run("gm_train", args, options);
  }
  bool partial_file() {
    for (const auto& entry : fs::recursive_directory_iterator(dir.path()))
      if (entry.path().filename().string().find(".tmp") != std::string::npos) return true;
    return false;
  }
  void expect_nothing_written() {
    EXPECT_FALSE(fs::exists(out));
    EXPECT_FALSE(partial_file());
  }

  TempDir dir;
  std::string model = dir / "model.safetensors", config = dir / "tiny.yaml", good = dir / "good.png",
              data = dir / "set", out = dir / "out";
};

TEST_F(Cli, MessagesToAClosedStreamDoNotGoIntoResults) {
  const std::vector<std::string> args{data, "--model", model, "--device", "cpu", "--out"};
  auto infer_to = [&](const std::string& file, bool no_err) {
    std::vector<std::string> all = args;
    all.push_back(dir / file);
    expect_success(run("gm_infer", all, {.no_err = no_err}));
    return read_text(dir / file);
  };
  EXPECT_EQ(infer_to("closed.csv", true), infer_to("open.csv", false));
}

TEST_F(Cli, ARunWithItsBestWeightsAloneIsKept) {
  expect_success(train({"--data", data, "--epochs", "1", "--batch", "4"}));
  fs::remove(out + "/last.safetensors");
  const std::string best = read_text(out + "/best.safetensors");
  expect_failure(train({"--data", data, "--epochs", "1", "--batch", "4"}), 1,
                 {out, "already holds a run (best.safetensors)"});
  EXPECT_EQ(read_text(out + "/best.safetensors"), best);
}

// As a run that was killed between the end of its last epoch and the return to its best weights.
TEST_F(Cli, AnEarlyStopIsFinishedByResume) {
  expect_success(train({"--data", data, "--epochs", "40", "--batch", "4", "--set", "train.patience=1",
                        "--set", "optimizer.lr=0.03"}));
  ASSERT_NE(read_text(out + "/log.txt").find("stopped early"), std::string::npos);
  auto weights = [&](const char* file) { return read_model(out + "/" + file).tensors.tensors; };
  auto same = [&] {
    for (const auto& [name, tensor] : weights("best.safetensors"))
      if (weights("last.safetensors").at(name).bytes != tensor.bytes) return false;
    return true;
  };
  EXPECT_FALSE(same());
  expect_success(train({"--data", data, "--epochs", "40", "--batch", "4", "--set", "train.patience=1",
                        "--set", "optimizer.lr=0.03", "--resume", "--set", "train.restore_best=true"}));
  EXPECT_TRUE(same());
}

TEST_F(Cli, HelpSucceedsAndUsageErrorsExitWithTwo) {
  for (const char* tool : {"gm_bench", "gm_check", "gm_compare", "gm_data", "gm_eval", "gm_explain",
                           "gm_infer", "gm_model", "gm_search", "gm_train"}) {
    const Ran help = run(tool, {"--help"});
    expect_success(help);
    EXPECT_NE(help.out.find("--help"), std::string::npos) << tool;
    EXPECT_EQ(help.err, "") << tool;
    if (tool != std::string("gm_bench"))
      expect_failure(run(tool, {}), 2, {"--help"});  // it needs no argument
    expect_failure(run(tool, {"--no-such-option"}), 2, {"--help"});
  }
  expect_failure(run("gm_data", {"synth"}), 2, {"--out"});
  expect_failure(run("gm_bench", {"--op", "no_such_op"}), 2, {"no_such_op"});
  expect_failure(run("gm_data", {"synth", "--out", out, "--count", "0"}), 2, {"--count"});
  expect_failure(run("gm_data", {"synth", "--out", out, "--classes", "gz6"}), 2, {"gz5"});
  expect_failure(infer({good, "--device", "gpu"}), 2, {"--device", "cuda:INDEX"});
  expect_failure(infer({good, "--batch", "0"}), 2, {"--batch"});
  expect_failure(train({"--data", data, "--epochs", "-1"}), 2, {"--epochs"});
  expect_failure(train({"--data", data, "--set", "epochs"}), 2, {"--set", "key=value"});
  expect_nothing_written();
}

TEST_F(Cli, UnreadableImageAloneFails) {
  const std::string jpg = dir / "a.jpg";
  write_image(jpg, gradient(64, 64));
  const std::string bytes = read_text(jpg);
  write_text(dir / "cut.jpg", bytes.substr(0, bytes.size() / 2));
  write_text(dir / "text.png", "not a picture");
  write_text(dir / "empty.png", "");
  write_text(dir / "one.png", png_bytes(1, 1, 8, 2, "\1\2\3"));
  write_text(dir / "wide.png", png_bytes(30000, 2, 8, 0, std::string(60000, '\1')));
  fs::create_directories(dir / "folder.jpg");

  const std::pair<std::string, std::string> cases[] = {
      {"absent.jpg", "no such file"},    {"cut.jpg", "truncated"},
      {"text.png", "not a JPEG or PNG"}, {"empty.png", "empty file"},
      {"one.png", "too small: 1x1 px"},  {"wide.png", "too large: 30000x2 px"},
      {"folder.jpg", "no JPEG or PNG"}};
  for (const auto& [name, reason] : cases) {
    expect_failure(infer({dir / name, "--out", dir / "p.csv"}), 1, {dir / name, reason});
    EXPECT_FALSE(fs::exists(dir / "p.csv"));
  }
  expect_nothing_written();
}

TEST_F(Cli, WithoutACardItsJpegDecoderIsAnError) {
  expect_failure(infer({dir / "set/images", "--decode", "card", "--out", dir / "p.csv"}), 1,
                 {"--decode card", "no decoder"});
  EXPECT_FALSE(fs::exists(dir / "p.csv"));
}

TEST_F(Cli, BadImagesAmongGoodOnesAreReportedAndSkipped) {
  write_text(dir / "set/images/bad.png", "no picture");
  const std::string csv = dir / "p.csv";
  const Ran r = infer({dir / "set/images", "--out", csv});
  expect_success(r);
  EXPECT_EQ(r.err, "gm_infer: skipped: " + (dir / "set/images/bad.png") + ": not a JPEG or PNG image\n");
  EXPECT_EQ(CsvTable(csv).rows(), 20);
  expect_failure(infer({dir / "set/images", "--strict", "--out", dir / "q.csv"}), 1, {"bad.png"});
  EXPECT_FALSE(fs::exists(dir / "q.csv"));
}

TEST_F(Cli, GreySixteenBitAndAlphaImagesAreClassified) {
  write_text(dir / "set/images/grey.png", png_bytes(32, 32, 8, 0, std::string(32 * 32, '\x40')));
  write_text(dir / "set/images/deep.png", png_bytes(32, 32, 16, 2, std::string(32 * 32 * 6, '\x40')));
  write_text(dir / "set/images/alpha.png", png_bytes(32, 32, 8, 6, std::string(32 * 32 * 4, '\x40')));
  const std::string csv = dir / "p.csv";
  const Ran r = infer({dir / "set/images", "--out", csv});
  expect_success(r);
  EXPECT_EQ(r.err, "");
  const CsvTable table(csv);
  EXPECT_EQ(table.rows(), 23);
  // The same grey in 8 bits, in 16 bits and under alpha is the same picture.
  std::vector<std::string> p;
  for (int64_t i = 0; i < table.rows(); ++i)
    for (const char* id : {"grey", "deep", "alpha"})
      if (table.cell(i, 0) == id) p.push_back(table.cell(i, table.column("p_round")));
  ASSERT_EQ(p.size(), 3u);
  EXPECT_EQ(p[0], p[1]);
  EXPECT_EQ(p[0], p[2]);
}

TEST_F(Cli, EmptyFolderAndUnknownData) {
  fs::create_directories(dir / "empty");
  write_text(dir / "data.xyz", "1");
  expect_failure(infer({dir / "empty"}), 1, {dir / "empty", "no JPEG or PNG images"});
  expect_failure(train({"--data", dir / "empty"}), 1, {dir / "empty"});
  expect_failure(run("gm_data", {"info", dir / "empty"}), 1, {dir / "empty"});
  expect_failure(train({"--data", dir / "data.xyz"}), 1, {"data.xyz", "unknown kind of data"});
  expect_failure(train({"--data", dir / "none"}), 1, {dir / "none", "no such file"});
  expect_failure(train({}), 1, {"no data"});
  expect_failure(train({"--data", dir / "set/images"}), 1, {"has no labels"});
  expect_nothing_written();
}

TEST_F(Cli, Catalogs) {
  const std::string csv = dir / "set/c.csv";
  auto fails = [&](const std::string& text, const std::vector<std::string>& parts) {
    write_text(csv, text);
    expect_failure(train({"--data", csv}), 1, parts);
    expect_failure(run("gm_data", {"info", csv}), 1, parts);
  };
  fails("name,label\na,1\n", {csv, "file_loc", "name, label"});
  fails("id_str,label\na,1\nb,spiral\n", {csv + ":3", "spiral"});
  fails("id_str,label\na,1\nb,-2\n", {csv + ":3", "-2"});
  fails("id_str,label\na\n", {csv + ":2", "cells"});
  fails("id_str,label\n\"a,1\n", {csv + ":2", "quote"});
  fails("id_str,label\n", {csv, "no rows"});
  fails("", {csv, "empty"});
  // Seven classes where the model has five.
  write_text(csv, "id_str,label\na,6\nb,1\n");
  expect_failure(train({"--data", csv}), 1, {csv, "7 classes", "model.classes=7"});
  // An image that is missing shows when it is read, or before training, which may take hours to come to it.
  write_text(csv, "id_str,label\n" + std::string("a,0\nb,1\nc,2\nd,3\ne,4\nf,\n"));
  expect_failure(infer({csv, "--strict"}), 1, {dir / "set/images/a.jpg", "no such file"});
  expect_failure(train({"--data", csv}), 1, {csv, "5 of 5 labelled images", dir / "set/images/a.jpg"});
  expect_nothing_written();
}

/// A file with datasets of the given shapes (empty: left out), images u8 and ans i32, filled with zeros.
void write_hdf5(const std::string& path, const std::vector<hsize_t>& images,
                const std::vector<hsize_t>& ans) {
  h5::Lock lock;
  h5::Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
  auto put = [&](const char* name, hid_t type, size_t width, const std::vector<hsize_t>& shape) {
    if (shape.empty()) return;
    size_t n = width;
    for (hsize_t d : shape) n *= d;
    const std::vector<char> zeros(n);
    h5::Handle space(H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr), H5Sclose);
    h5::Handle set(H5Dcreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Dclose);
    ASSERT_GE(H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, zeros.data()), 0);
  };
  put("images", H5T_NATIVE_UINT8, 1, images);
  put("ans", H5T_NATIVE_INT32, 4, ans);
}

TEST_F(Cli, Hdf5Files) {
  const std::string h5 = dir / "d.h5";
  auto fails = [&](const std::vector<std::string>& parts) {
    expect_failure(train({"--data", h5}), 1, parts);
    expect_failure(run("gm_data", {"info", h5}), 1, parts);
  };
  write_hdf5(h5, {}, {20});
  fails({h5, "no dataset \"images\""});
  write_hdf5(h5, {20, 32, 32, 3}, {});
  fails({h5, "no dataset \"ans\""});
  write_hdf5(h5, {20, 32, 32}, {20});
  fails({h5, "(20, 32, 32), expected (N, H, W, 3)"});
  write_hdf5(h5, {20, 32, 32, 3}, {19});
  fails({h5, "ans has shape (19)"});
  write_hdf5(h5, {20, 1, 1, 3}, {20});
  fails({h5, "(20, 1, 1, 3)"});
  write_text(h5, "id_str,label\n");
  fails({h5, "not an HDF5 file"});
  expect_success(run("gm_data", {"pack", data, "--out", h5, "--quiet"}));
  fs::resize_file(h5, fs::file_size(h5) / 2);
  fails({h5, "truncated"});
  expect_failure(infer({h5}), 1, {h5, "truncated"});
  expect_nothing_written();
}

TEST_F(Cli, WeightFiles) {
  const std::string file = dir / "m.safetensors", bytes = read_text(model);
  auto fails = [&](const std::string& content, const std::vector<std::string>& parts) {
    write_text(file, content);
    expect_failure(run("gm_infer", {"--model", file, good, "--quiet"}), 1, parts);
    expect_failure(run("gm_model", {file}), 1, parts);
  };
  fails(bytes.substr(0, bytes.size() / 2), {file, "truncated"});
  fails(bytes.substr(0, 40), {file, "truncated"});
  fails("", {file, "not a safetensors file"});
  fails("no weights in here, only text", {file, "not a safetensors file"});
  TensorFile other = read_safetensors(model);
  other.metadata.erase("model");
  write_safetensors(file, other);
  expect_failure(run("gm_infer", {"--model", file, good, "--quiet"}), 1, {file, "no model description"});
  other.metadata["model"] = "[a, list]";
  write_safetensors(file, other);
  expect_failure(run("gm_infer", {"--model", file, good, "--quiet"}), 1, {file, "is not a mapping"});
  other = read_safetensors(model);
  other.tensors["predictions/bias"].spec.dtype = DType::i32;
  write_safetensors(file, other);
  expect_failure(run("gm_infer", {"--model", file, good, "--quiet"}), 1, {file, "'predictions/bias'", "i32"});
  // Weights and description of different networks.
  other = read_safetensors(model);
  other.tensors.erase("stem_conv/kernel");
  write_safetensors(file, other);
  expect_failure(run("gm_infer", {"--model", file, good, "--quiet"}), 1,
                 {file, "stem_conv/kernel", "missing"});
  other = read_safetensors(model);
  other.tensors["predictions/bias"] = StoredTensor::of(Shape{7}, std::vector<float>(7));
  write_safetensors(file, other);
  expect_failure(run("gm_infer", {"--model", file, good, "--quiet"}), 1, {file, "predictions/bias", "shape"});
  fs::create_directories(dir / "norun");
  expect_failure(run("gm_infer", {"--model", dir / "norun", good}), 1, {dir / "norun", "best.safetensors"});
  expect_failure(run("gm_infer", {"--model", dir / "absent", good}), 1, {dir / "absent"});
}

TEST_F(Cli, Configurations) {
  auto fails = [&](const std::string& from, const std::string& to, const std::vector<std::string>& parts) {
    std::string text = test::tiny_config();
    text.replace(text.find(from), from.size(), to);
    write_text(config, text);
    expect_failure(train({"--data", data}), 1, parts);
    expect_nothing_written();
  };
  fails("classes:", "clases:", {config + ":3: model.clases: unknown key", "did you mean 'classes'?"});
  fails("lr: 3.0e-3", "lr: high", {config + ":19: optimizer.lr: must be a number"});
  fails("kernel: 5", "kernel: 4", {config + ":13: model.stages[1].kernel: must be odd"});
  fails("batch: 8", "batch: -8", {config + ":21: train.batch: -8 is out of range"});
  fails("kind: gz", "kind: imagenet", {config + ":18", "'imagenet' is not one of"});
  fails("input:\n", "input: [\n", {config, "not valid YAML"});
  fails("input:\n", "recipe: [a]\ninput:\n", {config + ":15: recipe must be one name"});
  fails("input:\n", "train: {epochs: 1}\ninput:\n", {config + ":", "'train' is given twice"});
  expect_failure(run("gm_train", {dir / "none.yaml", "--data", data}), 1, {dir / "none.yaml", "cannot open"});
  expect_failure(run("gm_model", {dir / "none.yaml"}), 1, {dir / "none.yaml", "cannot open"});
  write_text(config, test::tiny_config());
  expect_failure(run("gm_model", {config, "--set", "model.stagse=1"}), 1, {"(--set)", "'stages'"});
  expect_failure(run("gm_model", {config, "--set", "model.se="}), 1, {"--set model.se=", "no value"});
  expect_failure(run("gm_model", {config, "--set", "recipe=paper"}), 1, {config, "no recipes", "'paper'"});
  expect_failure(run("gm_model", {config, "--set", "recipe="}), 1, {"--set recipe=", "no value"});
  expect_failure(run("gm_model", {config, "--set", "model.batch_norm.epsilon=0"}), 1, {"range [1e-12, 1]"});
}

TEST_F(Cli, BatchLargerThanTheData) {
  expect_failure(train({"--data", data, "--batch", "64"}), 1, {"train.batch 64", "15 images"});
  expect_nothing_written();
}

TEST_F(Cli, CudaWithoutACard) {
  if (no_cuda_reason().empty()) GTEST_SKIP() << "a CUDA card is here";
  expect_failure(train({"--data", data, "--device", "cuda"}), 1, {"--device cuda", no_cuda_reason()});
  expect_failure(run("gm_infer", {"--model", model, good, "--device", "cuda:1"}), 1, {"--device cuda:1"});
  expect_nothing_written();
}

TEST_F(Cli, UnwritablePlaces) {
  // A path below a regular file cannot be written, not even by root.
  const std::string below = good + "/x";
  expect_failure(run("gm_train", {config, "--data", data, "--out", below, "--quiet"}), 1, {below});
  for (const char* end : {".csv", ".h5"})
    expect_failure(infer({good, "--out", below + end}), 1, {below + end, "cannot write"});
  expect_failure(infer({good, "--out", dir / "p.txt"}), 1, {"p.txt", ".csv, .h5 or .fits"});
  expect_failure(run("gm_data", {"synth", "--count", "2", "--size", "16", "--quiet", "--out", below}), 1,
                 {below});
  expect_failure(run("gm_data", {"synth", "--count", "2", "--size", "16", "--quiet", "--out", below + ".h5"}),
                 1, {below + ".h5"});
  expect_failure(run("gm_data", {"pack", data, "--quiet", "--out", below + ".h5"}), 1, {below + ".h5"});
  expect_nothing_written();
}

TEST_F(Cli, FullDisk) {
  const test::Process::Options full{.file_limit = 512}, roomy{.file_limit = 4096};
  expect_failure(infer({data, "--out", dir / "p.csv"}, full), 1, {dir / "p.csv", "File too large"});
  EXPECT_FALSE(fs::exists(dir / "p.csv"));
  expect_failure(infer({data, "--out", dir / "p.h5"}, full), 1, {dir / "p.h5"});
  EXPECT_FALSE(fs::exists(dir / "p.h5"));
  expect_failure(infer({data}, {.out = "/dev/full"}), 1, {"cannot write"});
  expect_failure(run("gm_data", {"pack", data, "--quiet", "--out", dir / "d.h5"}, roomy), 1, {dir / "d.h5"});
  EXPECT_FALSE(fs::exists(dir / "d.h5"));
  expect_failure(
      run("gm_data", {"synth", "--quiet", "--count", "4", "--size", "64", "--out", dir / "s"}, full), 1,
      {dir / "s/images", "File too large"});
  EXPECT_FALSE(fs::exists(dir / "s/labels.csv"));
  expect_nothing_written();
}

TEST_F(Cli, OutputsThatWouldReplaceInputs) {
  const std::string catalog = dir / "set/labels.csv", other_name = dir / "link.csv",
                    before = read_text(catalog);
  fs::create_hard_link(catalog, other_name);
  for (const std::string& name : {catalog, other_name})
    expect_failure(infer({data, "--out", name}), 1, {name, "is an input"});
  expect_failure(infer({catalog, "--out", catalog}), 1, {catalog, "is an input"});
  expect_failure(run("gm_data", {"synth", "--count", "2", "--size", "16", "--quiet", "--out", data}), 1,
                 {catalog, "is there already"});
  EXPECT_EQ(read_text(catalog), before);
  const std::string packed = dir / "p.h5", weights = read_text(model);
  expect_success(run("gm_data", {"pack", data, "--quiet", "--out", packed}));
  const std::string pack = read_text(packed);
  expect_failure(infer({packed, "--out", packed}), 1, {packed, "is an input"});
  expect_failure(run("gm_data", {"pack", packed, "--quiet", "--out", packed}), 1, {packed, "is an input"});
  expect_failure(run("gm_data", {"synth", "--count", "2", "--size", "16", "--quiet", "--out", packed}), 1,
                 {packed, "is there already"});
  EXPECT_EQ(read_text(packed), pack);
  const std::string votes = dir / "votes.csv";
  write_text(votes, "GalaxyID\n1\n");
  expect_failure(run("gm_data", {"clean", votes, "--images", data, "--out", votes}), 1,
                 {votes, "is an input"});
  expect_failure(run("gm_data", {"preview", good, "--config", config, "--out", good}), 1,
                 {good, "is an input"});
  expect_failure(run("gm_search", {"child", config, "--out", config}), 1, {config, "is an input"});
  EXPECT_EQ(read_text(votes) + read_text(config), "GalaxyID\n1\n" + test::tiny_config());
  expect_failure(run("gm_model", {"export", model, "--to", "timm", "--out", model}), 1,
                 {model, "is an input"});
  EXPECT_EQ(read_text(model), weights);
  fs::create_directory(dir / "run");  // a run is evaluated by its best weights and resumed from its last
  for (const char* file : {"best", "last"})
    fs::copy_file(model, dir / ("run/" + std::string(file) + ".safetensors"));
  expect_failure(
      run("gm_model", {"export", dir / "run", "--to", "timm", "--out", dir / "run/last.safetensors"}), 1,
      {"last.safetensors", "is an input"});
  const std::string picture = dir / "set/images/g0.png", pixels = read_text(picture);
  expect_failure(run("gm_data", {"preview", data, "--config", config, "--out", picture}), 1,
                 {picture, "is an input"});
  EXPECT_EQ(read_text(picture), pixels);

  // Folders: of a configuration, of a catalog, of a search, of a fold.
  const std::string mine = dir / "mine/config.yaml", table = dir / "eval/predictions.csv";
  fs::create_directories(dir / "mine");
  fs::create_directories(dir / "eval");
  write_text(mine, test::tiny_config());
  expect_failure(run("gm_train", {mine, "--data", data, "--out", dir / "mine"}), 1, {mine, "is an input"});
  EXPECT_EQ(read_text(mine), test::tiny_config());
  write_text(table, "id_str,file_loc,label\ng0,../set/images/g0.png,0\n");
  auto evaluate = [&](const std::string& set) {
    return run("gm_eval", {"--model", model, "--data", set, "--out", dir / "eval", "--device", "cpu"});
  };
  expect_failure(evaluate(table), 1, {table, "is an input"});
  fs::rename(table, dir / "eval/mine.csv");
  write_text(dir / "eval/scores.json", "{}");
  expect_failure(evaluate(dir / "eval/mine.csv"), 1, {dir / "eval", "fold"});
  EXPECT_FALSE(fs::exists(table));
  fs::create_directories(out);
  write_text(out + "/journal.jsonl", "");
  expect_failure(train({"--data", data, "--epochs", "1"}), 1, {out, "already holds a run (journal.jsonl)"});
}

TEST_F(Cli, OptionsThatWouldDoNothing) {
  expect_failure(run("gm_model", {model, "--set", "model.se=0.5"}), 1, {"--set", model});
  expect_failure(run("gm_model", {config, "--batch", "9223372036854775807"}), 2, {"--batch"});
  expect_failure(run("gm_model", {config, "--json"}, {.out = "/dev/full"}), 1, {"No space left"});
  expect_failure(run("gm_check", {config, "--tolerance", "nan"}), 2, {"--tolerance", "'nan'"});
  expect_failure(run("gm_bench", {"--op", "add", "--threads", "100000"}), 2, {"--threads"});
  expect_failure(train({"--data", data, "--epochs", "0"}), 2, {"--epochs", "'0' is not a number above 0"});
  expect_failure(run("gm_train", {dir.path(), "--data", data, "--out", out}), 1, {dir.path(), "is a folder"});
  // --set takes one key each time: what follows is the configuration.
  expect_success(run("gm_model", {"--set", "input.size=64", config}));
  expect_nothing_written();
}

TEST_F(Cli, NamesOfClasses) {
  const std::string names = "model.class_names=[a, b, c, d, e]";
  expect_success(train({"--data", data, "--set", names, "--epochs", "1", "--batch", "8"}));
  const Ran r = run("gm_infer", {"--model", out, good, "--quiet", "--device", "cpu"});
  EXPECT_NE(r.out.find("id_str,class,p_a,p_b,p_c,p_d,p_e"), std::string::npos) << r.out << r.err;
  fs::remove_all(out);
  expect_failure(train({"--data", data, "--set", "model.class_names=[a, b, a, d, e]"}), 1,
                 {"class_names", "\"a\""});
  write_text(dir / "set/labels.csv", "id_str,label\ng0,a\ng1,a\n");
  expect_failure(train({"--data", data}), 1, {data, "has one class; there is nothing to learn"});
  write_text(dir / "set/labels.csv", "id_str,label\ng0,a\ng1,x\n");
  expect_failure(run("gm_search", {"run", config, "--data", data, "--out", out, "--set", names}), 1,
                 {"labels.csv:3", "\"x\"", "a, b, c, d, e"});
  expect_failure(train({"--data", data, "--set", names}), 1, {"labels.csv:3", "\"x\"", "a, b, c, d, e"});
  expect_nothing_written();
}

TEST_F(Cli, AnInterruptedInferenceLeavesNothing) {
  std::vector<std::string> args{"--model", model, "--quiet", "--device", "cpu", "--out", dir / "p.csv"};
  args.insert(args.end(), 5000, data);
  test::Process p("gm_infer", args, {});
  while (p.running() && !partial_file()) ::usleep(1000);
  p.send(SIGTERM);
  EXPECT_EQ(p.wait(), 1);
  EXPECT_NE(p.err().find("gm_infer: error: interrupted after "), std::string::npos) << p.err();
  EXPECT_FALSE(fs::exists(dir / "p.csv"));
  expect_nothing_written();
}

TEST_F(Cli, AnInterruptedPackLeavesNothing) {
  std::string csv = "id_str,file_loc\n";
  for (int i = 0; i < 20000; ++i) csv += "g,images/g0.png\n";
  write_text(dir / "many.csv", csv);
  fs::create_directory(dir / "images");
  fs::copy_file(good, dir / "images/g0.png");
  test::Process p("gm_data", {"pack", dir / "many.csv", "--out", dir / "many.h5", "--size", "300"}, {});
  while (p.running() && !partial_file()) ::usleep(1000);
  p.send(SIGINT);
  EXPECT_EQ(p.wait(), 1);
  EXPECT_NE(p.err().find("interrupted after "), std::string::npos) << p.err();
  EXPECT_FALSE(fs::exists(dir / "many.h5"));
  expect_nothing_written();
}

// Predictions of an earlier call survive one that fails.
TEST_F(Cli, FailedInferenceKeepsTheOldPredictions) {
  const std::string csv = dir / "p.csv";
  expect_success(infer({good, "--out", csv}));
  const std::string before = read_text(csv);
  write_text(dir / "set/images/bad.png", "no picture");
  expect_failure(infer({dir / "set/images", "--strict", "--out", csv}), 1, {"bad.png"});
  EXPECT_EQ(read_text(csv), before);
}

}  // namespace
}  // namespace gm
