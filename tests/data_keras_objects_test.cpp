// Weight files of Keras 3, a tree of groups: the layers that they hold, and trees that are none.
#include "tests/data_test_util.h"
#include "tests/imported_networks.h"
#include "tests/keras_files.h"

namespace gm {
namespace {

using test::expect_parts;
using test::noted_scalers;
using test::numbers_of;
using test::one_line_error;
using test::write_objects;

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
  std::map<std::string, float> variables;
  for (const auto& [layer, value] : layers) variables[layer + "/vars/0"] = value;
  write_objects(path, variables);
  const std::map<std::string, float> want{
      {"dense/0", 0},   {"dense_1/0", 1}, {"dense_2/0", 2},  {"dense_3/0", 3}, {"dense_4/0", 4},
      {"dense_5/0", 5}, {"conv2d/0", 10}, {"conv2d_7/0", 6}, {"fc1/0", 8},     {"cbam.fc1/0", 7}};
  EXPECT_EQ(numbers_of(path), want);
}

// Layers may be called like the groups at the root that hold none; some versions wrote "layers\x", one name.
TEST(Import, GroupsAreLayersByTheirPlace) {
  test::TempDir dir;
  const std::string path = dir / "a.weights.h5";
  write_objects(path, {{"layers/metrics/vars/0", 1},
                       {"layers/optimizer/vars/0", 2},
                       {"layers\\stem_conv/vars/0", 3},
                       {"metrics/mean/vars/0", 4}});
  EXPECT_EQ(numbers_of(path),
            (std::map<std::string, float>{{"metrics/0", 1}, {"optimizer/0", 2}, {"stem_conv/0", 3}}));
}

void put_text(hid_t object, const char* attribute, const std::string& text) {
  h5::Handle type(H5Tcopy(H5T_C_S1), H5Tclose), one(H5Screate(H5S_SCALAR), H5Sclose);
  H5Tset_size(type, text.size());
  h5::Handle a(H5Acreate2(object, attribute, type, one, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  ASSERT_GE(H5Awrite(a, type, text.data()), 0);
}

TEST(Import, ANotedNameIsThatOfItsLayerAlone) {
  test::TempDir dir;
  const std::string path = dir / "a.weights.h5";
  write_objects(path, {{"layers/conv2d/vars/0", 1}, {"layers/dense/0", 2}});
  {
    h5::Lock lock;
    h5::Handle file(H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT), H5Fclose),
        vars(H5Gopen2(file, "layers/conv2d/vars", H5P_DEFAULT), H5Gclose);
    put_text(vars, "name", "stem_conv");
  }
  EXPECT_EQ(numbers_of(path), (std::map<std::string, float>{{"stem_conv/0", 1}, {"dense/0", 2}}));
}

TEST(Import, TextsAreNoWeightsAndNoWeightIsThereTwice) {
  test::TempDir dir;
  const std::string path = dir / "a.weights.h5", twice = dir / "b.weights.h5";
  write_objects(path, {{"layers/conv2d/vars/0", 1}, {"layers/string_lookup/vars/", 0}});
  {
    h5::Lock lock;
    h5::Handle file(H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT), H5Fclose),
        type(H5Tcopy(H5T_C_S1), H5Tclose), one(H5Screate(H5S_SCALAR), H5Sclose),
        text(
            H5Dcreate2(file, "layers/string_lookup/vars/0", type, one, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
            H5Dclose);
    ASSERT_TRUE(text.ok());
  }
  EXPECT_EQ(numbers_of(path), (std::map<std::string, float>{{"conv2d/0", 1}}));
  write_objects(twice, {{"layers/conv2d/vars/0", 1}, {"_layer_checkpoint_dependencies/conv2d/vars/0", 2}});
  expect_parts(one_line_error([&] { read_keras_weights(twice); }), {twice, "'conv2d/0' occurs twice"});
}

TEST(Import, GroupsWithoutEndAreRefused) {
  test::TempDir dir;
  const std::string path = dir / "deep.weights.h5";
  std::string name = "layers/";
  for (int k = 0; k < 2 * kKerasDepth; ++k) name += "a/";
  write_objects(path, {{name + "vars/0", 1}});
  expect_parts(one_line_error([&] { read_keras_weights(path); }), {path, "nested too deeply"});
}

// One rescaling, one normalization and a rescaling beside it are those of Keras's own networks.
TEST(Import, LayersThatScaleBesideTheBackbonesOwnAreNoted) {
  test::TempDir dir;
  const std::string path = dir / "a.weights.h5";
  auto noted = [&](const std::vector<std::string>& scalers, const std::string& backbone = "layers/") {
    std::map<std::string, float> variables;
    for (const char* layer : {"conv2d", "conv2d_1", "dense"}) variables[backbone + layer + "/vars/0"] = 1;
    for (const std::string& s : scalers) variables["layers/" + s + "/"] = 0;
    write_objects(path, variables);
    return noted_scalers(path);
  };
  EXPECT_EQ(noted({"rescaling"}), "");
  EXPECT_EQ(noted({"normalization", "rescaling", "rescaling_1"}), "");
  EXPECT_EQ(noted({"rescaling", "rescaling_1"}), "'rescaling_1'");
  EXPECT_EQ(noted({"normalization", "normalization_1"}), "'normalization_1'");
  EXPECT_EQ(noted({"true_divide"}), "'true_divide'");
  EXPECT_EQ(noted({"rescaling"}, "layers/functional/layers/"), "'rescaling'");
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
  expect_parts(one_line_error([&] { read_keras_weights(path); }),
               {path, "tensor 'conv/0': its shape has too many elements"});
}

}  // namespace
}  // namespace gm
