// The op `augment` as the GPU gets it, a batch of 8-bit images with their samples, against the loader's CPU
// path.
#include <cmath>
#include <filesystem>

#include "data/file_names.h"
#include "data/transform.h"
#include "engine/buffer.h"
#include "kernels/common/op.h"
#include "kernels/common/philox.h"
#include "tests/data_test_util.h"
#include "tests/require_cuda.h"

namespace gm {
namespace {

Image noise(int width, int height) {
  Image image{width, height, std::vector<uint8_t>(static_cast<size_t>(width) * height * 3)};
  PhiloxStream rng(static_cast<uint64_t>(width) * 1000 + height, RngUse::sample);
  for (auto& v : image.rgb) v = static_cast<uint8_t>(rng.below(256));
  return image;
}

/// A batch on a device, through the op. Scaling and dtype come from `attrs`.
std::vector<float> run_op(Device& device, const std::vector<Image>& images, const Transform& transform,
                          Attrs attrs, uint32_t epoch) {
  std::vector<uint8_t> bytes;
  std::vector<AugmentSample> samples;
  for (size_t i = 0; i < images.size(); ++i) {
    samples.push_back(
        transform.sample(images[i].width, images[i].height, 5, epoch, static_cast<uint32_t>(i)));
    samples.back().offset = static_cast<int64_t>(bytes.size());
    bytes.insert(bytes.end(), images[i].rgb.begin(), images[i].rgb.end());
  }
  attrs.set("size", transform.config().size).set("colour", transform.recolours());
  const OpDef& op = find_op("augment");
  const int64_t n = static_cast<int64_t>(images.size());
  const Specs in{{Shape{static_cast<int64_t>(bytes.size())}, DType::u8},
                 {Shape{n, sizeof(AugmentSample)}, DType::u8}};
  const TensorSpec out = op.infer(attrs, in)[0];
  Buffer pool(device, bytes.size()), records(device, in[1].bytes()), result(device, out.bytes()),
      scratch(device, op.workspace(device.backend(), Pass::forward, attrs, in));
  pool.upload(bytes);
  records.upload(samples);
  const View in_views[] = {pool.view(0, in[0]), records.view(0, in[1])}, out_view[] = {result.view(0, out)};
  const Context ctx = device.context();
  kernel_table(device.backend())[op_index(op)].forward(
      OpCall{attrs, in_views, out_view, {}, {}, {}, {}, {scratch.data(), {}}, ctx});
  device.synchronize();
  if (out.dtype == DType::f32) return result.download<float>();
  std::vector<float> values;
  for (bf16 b : result.download<bf16>()) values.push_back(to_float(b));
  return values;
}

std::vector<std::unique_ptr<Device>> devices() {
  std::vector<std::unique_ptr<Device>> list;
  for (const char* name : {"cpu", "simt"}) list.push_back(open_device(name));
  if (test::require_cuda()) list.push_back(open_device("cuda"));
  return list;
}

void compare(const std::vector<Image>& images, int size) {
  const auto all = devices();
  TransformConfig random = TransformConfig::none(size);
  random.random_ops = 2;
  for (const auto& config :
       {TransformConfig::none(size), TransformConfig::gz(size), TransformConfig::keras(size), random})
    for (bool training : {true, false}) {
      const Transform transform(config, training);
      std::vector<float> want(images.size() * size * size * 3);
      for (size_t i = 0; i < images.size(); ++i)
        transform.apply(images[i], 5, 2, static_cast<uint32_t>(i), want.data() + i * size * size * 3);
      for (const auto& device : all) {
        SCOPED_TRACE(std::string(backend_name(device->backend())) +
                     (training ? ", training" : ", evaluation"));
        const std::vector<float> got = run_op(*device, images, transform, {}, 2);
        ASSERT_EQ(got.size(), want.size());
        if (device->backend() == Backend::cpu) {
          EXPECT_EQ(got, want) << "one definition: the same bits";
          continue;
        }
        // f32 rounding of positions and of the mean grey; never a pixel's difference. Of 255.
        for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], 0.02) << "element " << i;
        // Scaled and in bf16, as the network takes it.
        Attrs scaled{{"bf16", 1}};
        for (const char* c : {"0", "1", "2"})
          scaled.set(std::string("mean") + c, 127.5).set(std::string("std") + c, 127.5);
        const std::vector<float> half = run_op(*device, images, transform, scaled, 2);
        for (size_t i = 0; i < want.size(); ++i)
          ASSERT_NEAR(half[i], (want[i] - 127.5) / 127.5, 0.002 + 0.004 * std::abs(half[i]))
              << "element " << i;
      }
    }
}

TEST(DataAugment, EqualsTheLoadersPixelsOnNoise) {
  compare({noise(64, 64), noise(264, 264), noise(31, 77), noise(2, 90)}, 24);
  compare({noise(24, 24), noise(300, 200)}, 24);  // the first has the network's size: copied in evaluation
}

TEST(DataAugment, EqualsTheLoadersPixelsOnGalaxies) {
  const char* shared = std::getenv("GM_SHARED_DATA");
  if (!shared) GTEST_SKIP() << "GM_SHARED_DATA is not set";
  std::vector<Image> images;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(std::string(shared) + "/gz5"))
    if (is_image_name(entry.path().string()) && images.size() < 4)
      images.push_back(read_image(entry.path().string()));
  ASSERT_EQ(images.size(), 4u);
  compare(images, 40);
}

}  // namespace
}  // namespace gm
