// The tools on bad images, catalogs, HDF5 and weight files: one clear line, the right exit code.
#include "data/csv.h"
#include "data/hdf5_util.h"
#include "data/image.h"
#include "tests/cli_fixture.h"

namespace gm {
namespace {

namespace fs = std::filesystem;
using test::Cli;
using test::expect_failure;
using test::expect_success;
using test::gradient;
using test::png_bytes;
using test::Ran;
using test::read_text;
using test::run;
using test::write_text;

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

TEST_F(Cli, ImagesOfOneNameAreSaidToShareIt) {
  fs::create_directories(dir / "other");
  for (const std::string name : {"new.png", "g3.png", "g7.png"})
    write_image(dir / ("other/" + name), gradient(32, 32));
  const std::vector<std::string> args{"--model", model, dir / "set/images", dir / "other"};
  const Ran r = run("gm_infer", args);
  expect_success(r);
  EXPECT_NE(r.err.find("note: 2 of 23 images have an id that an earlier one has (\"g3\": " +
                       (dir / "set/images/g3.png") + " and " + (dir / "other/g3.png") + ")"),
            std::string::npos)
      << r.err;
  EXPECT_EQ(infer({dir / "set/images", dir / "other"}).err, "");
  const Ran distinct = run("gm_infer", {"--model", model, dir / "set/images"});
  EXPECT_EQ(distinct.err.find("note:"), std::string::npos) << distinct.err;
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
/// one_chunk: as h5py may write them.
void write_hdf5(const std::string& path, const std::vector<hsize_t>& images, const std::vector<hsize_t>& ans,
                bool one_chunk = false) {
  h5::Lock lock;
  h5::Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
  auto put = [&](const char* name, hid_t type, size_t width, const std::vector<hsize_t>& shape) {
    if (shape.empty()) return;
    size_t n = width;
    for (hsize_t d : shape) n *= d;
    const std::vector<char> zeros(n);
    h5::Handle space(H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr), H5Sclose);
    h5::Handle layout(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
    if (one_chunk) H5Pset_chunk(layout, static_cast<int>(shape.size()), shape.data());
    h5::Handle set(H5Dcreate2(file, name, type, space, H5P_DEFAULT, layout, H5P_DEFAULT), H5Dclose);
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

TEST_F(Cli, NoRoomToUnpackIsNoFaultOfTheImages) {
  const std::string file = dir / "c.h5", scores = dir / "scores.csv";
  write_hdf5(file, {20, 32, 32, 3}, {20}, true);
  const std::string nowhere = dir / "nowhere";
  expect_failure(infer({file, "--out", scores}, {.scratch = nowhere}), 1, {"cannot create a scratch file"});
  expect_failure(run("gm_data", {"info", file}, {.scratch = nowhere}), 1, {"cannot create a scratch file"});
  expect_failure(infer({file, "--out", scores}, {.file_limit = 20000}), 1,
                 {"no room to unpack 61440 bytes in ", "File too large"});
  EXPECT_FALSE(fs::exists(scores) || partial_file());
  expect_success(infer({file, "--out", scores}));
}

// Files and scratch files are closed when their images have been read.
TEST_F(Cli, MoreHdf5FilesThanDescriptors) {
  const std::string scores = dir / "scores.csv";
  std::vector<std::string> args{"--out", scores};
  for (int i = 0; i < 60; ++i) {
    args.push_back(dir / ("shard" + std::to_string(i) + ".h5"));
    write_hdf5(args.back(), {20, 32, 32, 3}, {20}, true);
  }
  expect_success(infer(args, {.open_limit = 40}));
  EXPECT_EQ(CsvTable(scores).rows(), 60 * 20);
  write_text(args.back(), "no HDF5 file");
  expect_failure(infer(args, {.open_limit = 40}), 1, {args.back(), "not an HDF5 file"});
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
  for (const char* part : {"input", "model"}) {
    YAML::Node description = parse_yaml(read_safetensors(model).metadata["model"], "model");
    description.remove(part);
    other.metadata["model"] = config_text(description);
    write_safetensors(file, other);
    expect_failure(run("gm_infer", {"--model", file, good, "--quiet"}), 1,
                   {file, std::string(part) + ": is required"});
  }
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

TEST_F(Cli, BatchLargerThanTheData) {
  expect_failure(train({"--data", data, "--batch", "64"}), 1, {"train.batch 64", "15 images"});
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

}  // namespace
}  // namespace gm
