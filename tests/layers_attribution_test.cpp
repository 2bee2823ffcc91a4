// Saliency, SmoothGrad and Grad-CAM against PyTorch's autograd (golden/make_explain_golden.py), finite
// differences and a network small enough to do by hand.
#include "layers/attribution.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/data_test_util.h"
#include "tests/vectors.h"

namespace gm {
namespace {

using test::relative_l2;

/// One of the networks of tests/golden with its first two images.
struct Twin {
  explicit Twin(const std::string& name) {
    const std::string folder = std::string(GM_SOURCE_DIR) + "/tests/golden/";
    a = read_architecture(load_config(folder + name + ".yaml"), name);
    const TensorFile given = read_safetensors(folder + name + ".safetensors");
    for (const auto& [key, tensor] : given.tensors)
      if (key.starts_with("weights/")) weights.tensors[key.substr(8)] = tensor;
    const auto& bytes = given.at("pixels").bytes;
    const size_t count = 2 * size_t(a.input_size) * a.input_size * 3;
    const auto* p = reinterpret_cast<const uint8_t*>(bytes.data());
    pixels.assign(p, p + count);
    want = read_safetensors(folder + "explain/" + name + ".safetensors");
    const auto* c = reinterpret_cast<const int32_t*>(want.at("classes").bytes.data());
    classes.assign(c, c + 2);
  }
  Architecture a;
  TensorFile weights, want;
  std::vector<float> pixels;
  std::vector<int> classes;
  std::unique_ptr<Device> device = open_device("cpu");
};

class AttributionGolden : public testing::TestWithParam<const char*> {};

TEST_P(AttributionGolden, AgreesWithAutograd) {
  Twin t(GetParam());
  for (const char* layer : {"cbam_spatial_scale", "top_activation", "block2b_add"}) {
    SCOPED_TRACE(layer);
    Attribution net(*t.device, t.a, t.weights, 2, layer);
    net.logits(t.pixels);
    net.differentiate(t.classes);
    EXPECT_LT(relative_l2(net.pixel_gradient(), t.want.at("gradient").floats()), 1e-4);
    EXPECT_LT(relative_l2(net.grad_cam(), t.want.at(std::string("gradcam/") + layer).floats()), 1e-4);
  }
}

TEST_P(AttributionGolden, CudaSourcesOnFibersAgree) {
  Twin t(GetParam());
  const auto simt = open_device("simt");
  Attribution net(*simt, t.a, t.weights, 2);
  net.logits(t.pixels);
  net.differentiate(t.classes);
  EXPECT_LT(relative_l2(net.pixel_gradient(), t.want.at("gradient").floats()), 1e-4);
  EXPECT_LT(relative_l2(net.grad_cam(), t.want.at("gradcam/cbam_spatial_scale").floats()), 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Torch, AttributionGolden, testing::Values("cbam_keras", "cbam_authors"));

TEST(Attribution, AgreesWithFiniteDifferences) {
  Twin t("cbam_keras");
  Attribution net(*t.device, t.a, t.weights, 2);
  EXPECT_EQ(net.layer(), "cbam_spatial_scale");
  net.logits(t.pixels);
  net.differentiate(t.classes);
  const auto gradient = net.pixel_gradient();
  const int64_t each = int64_t(gradient.size()) / 2, width = t.a.classes;
  const double scale = *std::max_element(gradient.begin(), gradient.end());
  constexpr float kStep = 0.25f;  // grey levels: small against the curvature, large against rounding
  for (int64_t image = 0; image < 2; ++image)
    for (int64_t at : {int64_t{0}, each / 3, each / 2 + 1, each - 1}) {
      auto moved = [&](float by) {
        auto pixels = t.pixels;
        pixels[image * each + at] += by;
        return double(net.logits(pixels)[image * width + t.classes[image]]);
      };
      const double slope = (moved(kStep) - moved(-kStep)) / (2 * kStep);
      EXPECT_NEAR(gradient[image * each + at], slope, 0.01 * scale) << image << " " << at;
    }
}

/// 4 x 4 pixels go through unchanged (1x1 kernels, ReLU, a residual branch of zeros) to average pool and
/// predictions: z_c = sum_k W_ck mean(A_k) with A = the pixels.
TEST(Attribution, ByHand) {
  Architecture a;
  a.classes = 2;
  a.input_size = 4;
  a.act = Act::relu;
  a.std = {1, 1, 1};
  a.stem_kernel = a.stem_stride = 1;
  a.stem_filters = 3;
  a.stages = {{.block = BlockType::mbconv, .expand = 1, .kernel = 1, .filters = 3}};
  auto device = open_device("cpu");
  ParameterTable table;
  build_network(a, table, {.loss = false});
  const float kernel[2][3] = {{2, -1, 0.5f}, {-4, 1, 1}};
  TensorFile file;
  for (const Parameter& p : table) {
    std::vector<float> v(static_cast<size_t>(p.shape.numel()), 0.f);
    if (p.name == "stem_conv/kernel") v = {1, 0, 0, 0, 1, 0, 0, 0, 1};
    if (p.name == "stem_bn/gamma") v.assign(3, 1);
    if (p.name.ends_with("moving_variance")) v.assign(v.size(), static_cast<float>(1 - a.bn_epsilon));
    if (p.name == "predictions/kernel") v.assign(&kernel[0][0], &kernel[0][0] + 6);
    file.tensors[p.name] = StoredTensor::of(p.shape, v);
  }
  Attribution net(*device, a, file, 2);
  EXPECT_EQ(net.layer(), "block1a_add");
  EXPECT_EQ(net.feature_shape(), (Shape{2, 4, 4, 3}));
  std::vector<float> pixels(2 * 16 * 3);
  for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<float>(1 + i * 37 % 101);
  const auto z = net.logits(pixels);
  for (int c = 0; c < 2; ++c) {
    double want = 0;
    for (int p = 0; p < 16; ++p)
      for (int k = 0; k < 3; ++k) want += double(kernel[c][k]) * pixels[3 * p + k] / 16;
    EXPECT_NEAR(z[c], want, 1e-3);
  }
  const std::vector<int> classes{0, 1};
  net.differentiate(classes);
  const auto gradient = net.pixel_gradient(), cam = net.grad_cam(), saliency = channel_magnitude(gradient);
  for (int n = 0; n < 2; ++n)
    for (int p = 0; p < 16; ++p) {
      double weighted = 0;
      for (int k = 0; k < 3; ++k) {
        EXPECT_NEAR(gradient[(n * 16 + p) * 3 + k], kernel[n][k] / 16, 1e-6);
        weighted += kernel[n][k] / 16 * pixels[(n * 16 + p) * 3 + k];
      }
      EXPECT_NEAR(cam[n * 16 + p], std::max(0.0, weighted), 1e-4);
      EXPECT_NEAR(saliency[n * 16 + p], n == 0 ? 2.0 / 16 : 4.0 / 16, 1e-6);
    }
  // An image without a class has no gradient; the other's is as before.
  net.logits(pixels);
  net.differentiate({-1, 1});
  const auto half = net.pixel_gradient();
  EXPECT_TRUE(std::all_of(half.begin(), half.begin() + 48, [](float v) { return v == 0; }));
  EXPECT_TRUE(std::equal(half.begin() + 48, half.end(), gradient.begin() + 48));
}

TEST(Attribution, SmoothGradIsTheMeanOverNoise) {
  Twin t("cbam_keras");
  Attribution net(*t.device, t.a, t.weights, 2);
  net.logits(t.pixels);
  net.differentiate(t.classes);
  const auto plain = net.pixel_gradient();
  EXPECT_EQ(net.smooth_gradient(t.pixels, t.classes, {4, 9}, {.samples = 2, .noise = 0}), plain);
  const SmoothGradConfig config{.samples = 3, .noise = 0.1, .seed = 5};
  const auto smooth = net.smooth_gradient(t.pixels, t.classes, {4, 9}, config);
  EXPECT_GT(relative_l2(smooth, plain), 0.05);
  // The same image at another place of another batch gets the same noise.
  const size_t each = t.pixels.size() / 2;
  auto swapped = t.pixels;
  std::rotate(swapped.begin(), swapped.begin() + each, swapped.end());
  auto back = net.smooth_gradient(swapped, {t.classes[1], t.classes[0]}, {9, 4}, config);
  std::rotate(back.begin(), back.begin() + each, back.end());
  EXPECT_EQ(back, smooth);
}

TEST(Attribution, UnknownLayersAreListedNearestFirst) {
  Twin t("cbam_keras");
  for (const char* name : {"top_activatoin", "no_such_thing", "predictions"})
    EXPECT_ERROR(Attribution(*t.device, t.a, t.weights, 2, name), std::string("no layer '") + name + "'");
  EXPECT_ERROR(Attribution(*t.device, t.a, t.weights, 2, "top_activatoin"), "there are top_activation, ");
  EXPECT_ERROR(Attribution(*t.device, t.a, t.weights, 2, "spatial_scale"), "there are cbam_spatial_scale, ");
}

}  // namespace
}  // namespace gm
