// A card's JPEG decoder in the processor's place: who decodes what, and what happens when it errs or is slow.
// The decoder is played by the processor's.
#include <atomic>
#include <filesystem>
#include <functional>
#include <thread>

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

// What the clock shows is played, too. To each thread it is 2 ms later at each look, which is what the
// processor takes; the card takes `card_ms` more or less.
class TimedCardJpegs : public CardJpegs {
 protected:
  static constexpr int kTimed = CheckedJpegDecoder::kTimed;
  static constexpr int kTrial = 1 + 3 * kTimed;  // pictures until the clock has decided
  inline static thread_local double now_ms = 0;

  TimedCardJpegs() : file(test::read_text(dir / "set/g00.jpg")), own(decode(nullptr)), card(own) {
    one_more(card);
  }
  void open(std::function<double()> card_ms, bool quiet = false) {
    auto decoder = std::make_unique<PlayedDecoder>([=](Image& image) {
      now_ms += card_ms();
      return one_more(image);
    });
    played = decoder.get();
    jpegs =
        std::make_unique<CheckedJpegDecoder>(std::move(decoder), quiet, [] { return 1e-3 * (now_ms += 2); });
  }
  Image decode(JpegDecoder* decoder) {
    return decode_image(reinterpret_cast<const uint8_t*>(file.data()), file.size(), "file", decoder);
  }
  std::string decode_many(int pictures, int threads) {
    testing::internal::CaptureStderr();
    std::vector<std::thread> all;
    std::atomic<int> next = 0;
    for (int t = 0; t < threads; ++t)
      all.emplace_back([&] {
        while (next++ < pictures) {
          const Image image = decode(jpegs.get());
          EXPECT_TRUE(image.rgb == card.rgb || image.rgb == own.rgb);
        }
      });
    for (auto& thread : all) thread.join();
    return testing::internal::GetCapturedStderr();
  }

  std::string file;
  Image own, card;  // what the two make of it
  std::unique_ptr<CheckedJpegDecoder> jpegs;
  PlayedDecoder* played = nullptr;
};

TEST_F(TimedCardJpegs, WithoutAClockTheSlowerOneDecodesAll) {
  auto decoder = std::make_unique<PlayedDecoder>([](Image& image) {
    now_ms += 6.4;
    return one_more(image);
  });
  jpegs = std::make_unique<CheckedJpegDecoder>(std::move(decoder), false, CheckedJpegDecoder::Clock());
  for (int i = 0; i < kTrial + 10; ++i) EXPECT_EQ(decode(jpegs.get()).rgb, card.rgb) << i;
}

TEST_F(TimedCardJpegs, TheSlowerOneIsDroppedAfterItsTrial) {
  open([] { return 6.4; });
  testing::internal::CaptureStderr();
  for (int i = 0; i < kTrial + 10; ++i)
    EXPECT_EQ(decode(jpegs.get()).rgb, i <= 2 * kTimed ? card.rgb : own.rgb) << i;
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "JPEG files: the processor from here on, 2.0 ms a picture; played takes 8.4 ms\n");
  EXPECT_EQ(played->calls, 1 + 2 * kTimed);
}

TEST_F(TimedCardJpegs, TheFasterOneIsKept) {
  open([] { return -1.5; });
  testing::internal::CaptureStderr();
  for (int i = 0; i < kTrial + 10; ++i)
    EXPECT_EQ(decode(jpegs.get()).rgb, i <= 2 * kTimed || i >= kTrial ? card.rgb : own.rgb) << i;
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_EQ(played->calls, 1 + 2 * kTimed + 10);
}

TEST_F(TimedCardJpegs, FirstCallsAndFewSlowOnesDoNotCount) {
  int call = 0;
  open([&] { return ++call <= 1 + kTimed || call % 3 == 0 ? 1000 : -1.5; });
  EXPECT_EQ(decode_many(kTrial + 10, 1), "");
  EXPECT_EQ(played->calls, 1 + 2 * kTimed + 10);
}

TEST_F(TimedCardJpegs, QuietIsQuiet) {
  open([] { return 6.4; }, true);
  EXPECT_EQ(decode_many(kTrial + 10, 1), "");
  EXPECT_EQ(played->calls, 1 + 2 * kTimed);
}

TEST_F(TimedCardJpegs, ManyThreadsDecideOnce) {
  constexpr int kThreads = 8, kPictures = 1000;
  open([] { return 6.4; });
  EXPECT_EQ(decode_many(kPictures, kThreads),
            "JPEG files: the processor from here on, 2.0 ms a picture; played takes 8.4 ms\n");
  const int slow = played->calls;
  EXPECT_GE(slow, 1 + 2 * kTimed);
  EXPECT_LT(slow, kPictures / 2);

  open([] { return -1.5; });
  EXPECT_EQ(decode_many(kPictures, kThreads), "");
  EXPECT_GT(played->calls, kPictures / 2);
}

// A call of the card that ends while the processor is timed: what was counted beside it is counted anew.
TEST_F(TimedCardJpegs, ACallOfTheStageBeforeStartsACountAnew) {
  std::atomic<int> call = 0;
  std::atomic<bool> held = false, free = false;
  auto raise = [](std::atomic<bool>& flag) {
    flag = true;
    flag.notify_all();
  };
  open([&] {
    if (++call == 2 * kTimed) {  // of the card's last stage
      raise(held);
      free.wait(false);
    }
    return 6.4;
  });
  for (int i = 1; i < 2 * kTimed; ++i) decode(jpegs.get());
  std::thread late([&] {
    decode(jpegs.get());
    raise(held);  // were it never held
  });
  held.wait(false);
  for (int i = 0; i < 2; ++i) decode(jpegs.get());                               // ends the card's stage
  for (int i = 1; i < kTimed; ++i) EXPECT_EQ(decode(jpegs.get()).rgb, own.rgb);  // all but one
  raise(free);
  late.join();
  testing::internal::CaptureStderr();
  for (int i = 1; i < kTimed; ++i) decode(jpegs.get());
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  testing::internal::CaptureStderr();
  decode(jpegs.get());
  EXPECT_NE(testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace gm
