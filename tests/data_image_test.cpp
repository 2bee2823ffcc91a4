#include "data/image.h"

#include <cmath>

#include "tests/data_test_util.h"

namespace gm {
namespace {
using test::TempDir;

TEST(DataImage, PngRoundTripIsExact) {
  TempDir dir;
  Image image = test::gradient(7, 5);
  write_image(dir / "a.png", image);
  Image back = read_image(dir / "a.png");
  EXPECT_EQ(back.width, 7);
  EXPECT_EQ(back.height, 5);
  EXPECT_EQ(back.rgb, image.rgb);
  EXPECT_EQ(dir.entries(), 1u) << "no temporary file may stay";
}

TEST(DataImage, JpegRoundTripIsClose) {
  TempDir dir;
  Image image = test::gradient(64, 48);
  write_image(dir / "a.JPG", image);
  Image back = read_image(dir / "a.JPG");
  ASSERT_EQ(back.rgb.size(), image.rgb.size());
  for (size_t i = 0; i < image.rgb.size(); ++i) ASSERT_LE(std::abs(back.rgb[i] - image.rgb[i]), 12) << i;
}

TEST(DataImage, GreySixteenBitAndAlphaBecomeRgb8) {
  TempDir dir;
  using namespace std::string_literals;
  test::write_text(dir / "grey.png", test::png_bytes(2, 2, 8, 0, "\x01\x02\x03\xff"s));
  EXPECT_EQ(read_image(dir / "grey.png").rgb,
            (std::vector<uint8_t>{1, 1, 1, 2, 2, 2, 3, 3, 3, 255, 255, 255}));
  // 16 bits, big-endian: 0x1234, 0xABCD, 0x00FF, 0xFFFF keep their high bytes.
  test::write_text(dir / "grey16.png", test::png_bytes(2, 2, 16, 0, "\x12\x34\xab\xcd\x00\xff\xff\xff"s));
  EXPECT_EQ(read_image(dir / "grey16.png").rgb,
            (std::vector<uint8_t>{0x12, 0x12, 0x12, 0xab, 0xab, 0xab, 0, 0, 0, 255, 255, 255}));
  test::write_text(dir / "rgba.png", test::png_bytes(2, 2, 8, 6,
                                                     "\x01\x02\x03\x00\x04\x05\x06\x80"
                                                     "\x07\x08\x09\xff\x0a\x0b\x0c\x01"s));
  EXPECT_EQ(read_image(dir / "rgba.png").rgb, (std::vector<uint8_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}));
}

TEST(DataImage, BadFilesAreNamedWithTheReason) {
  TempDir dir;
  EXPECT_ERROR(read_image(dir / "none.jpg"), "none.jpg: no such file");
  EXPECT_ERROR(read_image(dir.path()), "is a folder");
  test::write_text(dir / "empty.jpg", "");
  EXPECT_ERROR(read_image(dir / "empty.jpg"), "empty.jpg: empty file");
  test::write_text(dir / "text.jpg", "I am not a picture");
  EXPECT_ERROR(read_image(dir / "text.jpg"), "text.jpg: not a JPEG or PNG image");
  test::write_text(dir / "one.png", test::png_bytes(1, 1, 8, 0, "x"));
  EXPECT_ERROR(read_image(dir / "one.png"), "one.png: image too small: 1x1 px");
  test::write_text(dir / "huge.png", test::png_bytes(30000, 30000, 8, 2, ""));
  EXPECT_ERROR(read_image(dir / "huge.png"), "huge.png: image too large: 30000x30000 px");
  EXPECT_ERROR(write_image(dir / "a.bmp", test::gradient(4, 4)), ".bmp");
  EXPECT_ERROR(write_image(dir / "no/such/folder.png", test::gradient(4, 4)), "cannot write: No such file");
}

TEST(DataImage, LargeJpegIsRefusedFromItsHeader) {
  TempDir dir;
  write_image(dir / "a.jpg", test::gradient(32, 32));
  std::string bytes = test::read_text(dir / "a.jpg");
  size_t frame = bytes.find("\xFF\xC0");
  ASSERT_NE(frame, std::string::npos);
  bytes[frame + 7] = char(30000 >> 8);
  bytes[frame + 8] = char(30000 & 255);
  test::write_text(dir / "wide.jpg", bytes);
  EXPECT_ERROR(read_image(dir / "wide.jpg"), "wide.jpg: image too large: 30000x32 px");
}

TEST(DataImage, EveryTruncationIsFound) {
  TempDir dir;
  for (const char* name : {"a.jpg", "a.png"}) {
    write_image(dir / name, test::gradient(40, 40));
    std::string bytes = test::read_text(dir / name);
    // The decoder alone accepts JPEGs that lack most of their data.
    for (size_t keep = 1; keep + 1 < bytes.size(); keep += keep < 700 ? 1 : 13)
      EXPECT_THROW(decode_image(reinterpret_cast<const uint8_t*>(bytes.data()), keep, name), Error)
          << name << " cut to " << keep << " of " << bytes.size();
    EXPECT_NO_THROW(decode_image(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), name));
    std::string longer = bytes + "trailing bytes";
    EXPECT_NO_THROW(decode_image(reinterpret_cast<const uint8_t*>(longer.data()), longer.size(), name));
  }
}

TEST(DataImage, FlippedBytesNeverCrash) {
  TempDir dir;
  for (const char* name : {"a.jpg", "a.png"}) {
    write_image(dir / name, test::gradient(24, 24));
    std::string bytes = test::read_text(dir / name);
    for (size_t i = 0; i < bytes.size(); i += 3) {
      std::string broken = bytes;
      broken[i] = static_cast<char>(broken[i] ^ 0x5A);
      try {
        Image image = decode_image(reinterpret_cast<const uint8_t*>(broken.data()), broken.size(), name);
        EXPECT_EQ(image.rgb.size(), static_cast<size_t>(image.width) * image.height * 3);
      } catch (const Error&) {
      }
    }
  }
}

}  // namespace
}  // namespace gm
