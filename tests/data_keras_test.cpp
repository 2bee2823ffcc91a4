// Keras's files as files: archives, the layouts of Keras 1 and 2, damage; and those that we write for its
// load_weights. Those of Keras 3: data_keras_objects_test.cpp.
#include <chrono>
#include <map>
#include <thread>

#include "data/hdf5_util.h"
#include "data/keras_weights.h"
#include "data/keras_writer.h"
#include "data/zip_file.h"
#include "tests/data_test_util.h"
#include "tests/imported_networks.h"
#include "tests/keras_files.h"

namespace gm {
namespace {

using test::expect_parts;
using test::kImportFolder;
using test::narrow_v2;
using test::noted_scalers;
using test::numbers_of;
using test::one_line_error;
using test::write_objects;

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
  expect_parts(one_line_error([&] { read(good, "other"); }), {path, "without other"});
  expect_parts(one_line_error([&] { read(stored_archive("text", "abd", kCheckSum)); }),
               {path, "text", "check sum"});
  const size_t end = good.find("PK\5\6");  // the record at the end, of which not all bytes matter
  for (size_t keep = 0; keep < end; ++keep)
    expect_parts(one_line_error([&] { read(good.substr(0, keep)); }), {path, "truncated"});
  std::string bad = good;
  bad[8] = bad[good.find("PK\1\2") + 10] = 99;
  expect_parts(one_line_error([&] { read(bad); }), {path, "text", "neither stored nor deflated"});
}

TEST(Import, ForeignAndTruncatedFilesAreOneLine) {
  test::TempDir dir;
  const std::string text = dir / "text.h5", half = dir / "half.h5", late = dir / "late.h5";
  test::write_text(text, "model: {}\n");
  expect_parts(one_line_error([&] { read_keras_weights(text); }), {text, "not an HDF5 file"});
  expect_parts(one_line_error([&] { read_keras_weights(dir / "none.h5"); }), {"none.h5", "cannot open"});
  for (const char* name : {"keras_v2.h5", "keras_v2.weights.h5"}) {
    const std::string bytes = test::read_text(kImportFolder + name);
    for (size_t keep : {bytes.size() / 4, bytes.size() / 2, bytes.size() - 1}) {
      test::write_text(half, bytes.substr(0, keep));
      expect_parts(one_line_error([&] { read_keras_weights(half); }), {half});
    }
  }
  const std::string archive = test::read_text(kImportFolder + "nested_keras2.keras");
  for (size_t keep : {archive.size() / 4, archive.size() - 30}) {
    test::write_text(half, archive.substr(0, keep));
    expect_parts(one_line_error([&] { read_keras_weights(half); }), {half});
  }
  const std::string weights = kImportFolder + "keras_v2.safetensors";
  expect_parts(one_line_error([&] { read_keras_weights(weights); }), {weights, "not an HDF5 file"});
  expect_parts(one_line_error([&] { read_safetensors(kImportFolder + "keras_v2.h5"); }),
               {"not a safetensors file"});
}

// ---- the legacy layout as older versions of Keras wrote it, by hand

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

/// Layers in the order of the list, each with the weights that it lists, one number each.
void write_listed(const std::string& path,
                  const std::vector<std::pair<std::string, std::map<std::string, float>>>& layers) {
  std::map<std::string, float> variables;
  for (const auto& [layer, weights] : layers) {
    variables[layer + "/"] = 0;
    for (const auto& [weight, value] : weights) variables[layer + "/" + weight] = value;
  }
  write_objects(path, variables);
  h5::Lock lock;
  h5::Handle file(H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT), H5Fclose);
  std::vector<std::string> names;
  for (const auto& [layer, weights] : layers) {
    names.push_back(layer);
    std::vector<std::string> listed;
    for (const auto& [weight, _] : weights) listed.push_back(weight);
    const h5::Handle group(H5Gopen2(file, layer.c_str(), H5P_DEFAULT), H5Gclose);
    if (!listed.empty()) put_names(group, "weight_names", listed);
  }
  put_names(file, "layer_names", names);
}

TEST(Import, LayersOfOneNameAreNumberedInTheOrderOfTheList) {
  test::TempDir dir;
  const std::string path = dir / "a.h5";
  write_listed(path, {{"model_b", {{"conv2d/kernel:0", 1}, {"cell/fc/kernel:0", 4}}},
                      {"model_a", {{"conv2d/kernel:0", 2}, {"cell/fc/kernel:0", 5}}},
                      {"dropout", {{"seed_generator/state:0", 9}}}});
  EXPECT_EQ(numbers_of(path), (std::map<std::string, float>{{"conv2d/kernel", 1},
                                                            {"conv2d_1/kernel", 2},
                                                            {"model_b.cell.fc/kernel", 4},
                                                            {"model_a.cell.fc/kernel", 5}}));
}

TEST(Import, ListedLayersOfUnknownEffectInFrontAreNoted) {
  test::TempDir dir;
  const std::string path = dir / "a.h5";
  auto noted = [&](const std::vector<std::string>& front, const std::string& behind) {
    std::vector<std::pair<std::string, std::map<std::string, float>>> layers;
    for (const std::string& layer : front) layers.push_back({layer, {}});
    layers.push_back({"conv2d", {{"conv2d/kernel:0", 1}}});
    layers.push_back({behind, {}});
    write_listed(path, layers);
    return noted_scalers(path);
  };
  EXPECT_EQ(noted({"input_1", "tf.cast"}, "lambda"), "");
  EXPECT_EQ(noted({"tf.math.truediv"}, "tf.nn.relu"), "'tf.math.truediv'");
  EXPECT_EQ(noted({"lambda_1"}, "flatten"), "'lambda_1'");
}

TEST(Import, OlderKerasLayouts) {
  test::TempDir dir;
  const std::string path = dir / "old.h5";
  const TensorFile source = read_keras_weights(kImportFolder + "keras_v2.h5");
  Architecture a = narrow_v2(), b = a;
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
  expect_parts(one_line_error([&] { read_keras_weights(path); }),
               {path, "'block2a_expand_bn/beta' is missing"});
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
  const std::string theirs = kImportFolder + "keras_v2.h5", path = dir / "ours.h5", again = dir / "again.h5";
  const TensorFile source = read_keras_weights(theirs);
  Architecture a = narrow_v2();
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
  EXPECT_EQ(exported(narrow_v2()).order[0], "stem_conv/kernel");
}

}  // namespace
}  // namespace gm
