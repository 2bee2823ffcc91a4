// A card's JPEG decoder in the processor's place: who decodes what, and what happens when it errs. The
// decoder is played by the processor's.
#include <atomic>
#include <filesystem>
#include <functional>

#include "data/checked_jpegs.h"
#include "data/loader.h"
#include "tests/data_test_util.h"

namespace gm {
namespace {
using test::TempDir;

/// Gives `change` of what the processor decodes.
class PlayedDecoder : public JpegDecoder {
 public:
  using Change = std::function<bool(Image&)>;
  explicit PlayedDecoder(Change change) : change_(std::move(change)) {}
  std::string description() const override { return "played"; }
  bool decode(std::span<const uint8_t> file, int width, int height, std::span<uint8_t> rgb) override {
    ++calls;
    Image image = decode_image(file.data(), file.size(), "played");
    EXPECT_EQ(image.width, width);
    EXPECT_EQ(image.height, height);
    const bool taken = change_(image);
    std::copy(image.rgb.begin(), image.rgb.end(), rgb.begin());
    return taken;
  }
  std::atomic<int> calls = 0;

 private:
  Change change_;
};

bool one_more(Image& image) {
  for (uint8_t& v : image.rgb) v = static_cast<uint8_t>(std::min(255, v + 1));
  return true;
}
bool blue_first(Image& image) {
  for (size_t i = 0; i < image.rgb.size(); i += 3) std::swap(image.rgb[i], image.rgb[i + 2]);
  return true;
}

class CardJpegs : public testing::Test {
 protected:
  CardJpegs() {
    for (int i = 0; i < 12; ++i)
      write_image(dir / ("set/g" + std::string(i < 10 ? "0" : "") + std::to_string(i) + ".jpg"),
                  test::gradient(40, 24 + i, 20 * i));
  }
  /// A decoder that is checked, and the one behind it.
  std::pair<std::shared_ptr<JpegDecoder>, PlayedDecoder*> checked(PlayedDecoder::Change change) {
    auto played = std::make_unique<PlayedDecoder>(std::move(change));
    PlayedDecoder* raw = played.get();
    return {std::make_shared<CheckedJpegDecoder>(std::move(played)), raw};
  }
  std::vector<Image> read_all(const std::shared_ptr<JpegDecoder>& jpegs) {
    const auto set = open_dataset(dir / "set", {.jpegs = jpegs});
    std::vector<Image> images;
    for (int64_t i = 0; i < set->size(); ++i) images.push_back(set->read(i));
    return images;
  }

  struct Folder : TempDir {
    Folder() { std::filesystem::create_directory(*this / "set"); }
  } dir;
};

TEST_F(CardJpegs, ThePicturesAreTheCards) {
  const auto [jpegs, played] = checked(one_more);
  const auto own = read_all(nullptr), card = read_all(jpegs);
  EXPECT_EQ(played->calls, 12);
  for (size_t i = 0; i < own.size(); ++i) {
    Image expected = own[i];
    one_more(expected);
    EXPECT_EQ(card[i].rgb, expected.rgb) << i;
    EXPECT_EQ(card[i].height, own[i].height);
  }
}

TEST_F(CardJpegs, CatalogsAndSinglePicturesAreTheCardsToo) {
  const auto [jpegs, played] = checked(one_more);
  test::write_text(dir / "set.csv", "file_loc\nset/g03.jpg\n");
  Image expected = read_image(dir / "set/g03.jpg");
  one_more(expected);
  for (const char* path : {"set.csv", "set/g03.jpg"})
    EXPECT_EQ(open_dataset(dir / path, {.jpegs = jpegs})->read(0).rgb, expected.rgb) << path;
  EXPECT_EQ(played->calls, 2);
}

TEST_F(CardJpegs, ADecoderThatSeesOtherPixelsIsNotUsed) {
  const auto [jpegs, played] = checked(blue_first);
  testing::internal::CaptureStderr();
  const auto own = read_all(nullptr), card = read_all(jpegs);
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(played->calls, 1);
  for (size_t i = 0; i < own.size(); ++i) EXPECT_EQ(card[i].rgb, own[i].rgb) << i;
  EXPECT_EQ(said.find("played decodes a picture to other pixels ("), 0u) << said;
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1);
}

TEST_F(CardJpegs, FilesThatItDoesNotTakeAreTheProcessors) {
  int asked = 0;
  const auto [jpegs, played] = checked([&](Image& image) {
    one_more(image);
    return ++asked % 3 == 0;  // the first two, too: they must not settle what it is worth
  });
  const auto own = read_all(nullptr), card = read_all(jpegs);
  EXPECT_EQ(played->calls, 12);
  for (size_t i = 0; i < own.size(); ++i) EXPECT_EQ(card[i].rgb == own[i].rgb, i % 3 != 2) << i;
}

TEST_F(CardJpegs, NeitherPngNorUncertainColoursNorBrokenFilesReachIt) {
  const auto [jpegs, played] = checked(one_more);
  write_image(dir / "a.png", test::gradient(8, 8));
  EXPECT_EQ(read_image(dir / "a.png", jpegs.get()).rgb, test::gradient(8, 8).rgb);
  std::string bytes = test::read_text(dir / "set/g00.jpg");
  test::write_text(dir / "short.jpg", bytes.substr(0, bytes.size() - 9));
  EXPECT_ERROR(read_image(dir / "short.jpg", jpegs.get()), "short.jpg: truncated image");
  ASSERT_EQ(bytes.substr(6, 4), "JFIF");
  bytes[6] = 'X';
  test::write_text(dir / "other.jpg", bytes);
  EXPECT_EQ(read_image(dir / "other.jpg", jpegs.get()).rgb, read_image(dir / "set/g00.jpg").rgb);
  EXPECT_EQ(played->calls, 0);
}

TEST_F(CardJpegs, ManyThreadsWaitForOneVerdict) {
  const auto [jpegs, played] = checked(blue_first);
  testing::internal::CaptureStderr();
  const std::vector<int64_t> rows{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  auto pixels = [&](const std::shared_ptr<JpegDecoder>& decoder) {
    Loader loader(open_dataset(dir / "set", {.jpegs = decoder}), rows,
                  {.batch = 12, .transform = TransformConfig::none(16), .workers = 8, .cache_bytes = 0});
    loader.start_epoch(0, 0);
    HostBatch batch;
    EXPECT_TRUE(loader.next(batch));
    return batch.pixels;
  };
  EXPECT_EQ(pixels(jpegs), pixels(nullptr));
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
  EXPECT_EQ(played->calls, 1);
}

}  // namespace
}  // namespace gm
