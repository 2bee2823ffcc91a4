#include "data/file_names.h"
#include "data/image.h"

#include <algorithm>
#include <cmath>
#include <set>

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

/// Made with Pillow 12: a 24x16 grey picture of min(255, 10 x + 4 y), saved with quality=40, optimize=True,
/// restart_marker_blocks=1.
std::vector<uint8_t> restart_jpeg() {
  const std::string hex =
      "ffd8ffe000104a46494600010100000100010000ffdb004300140e0f120f0d14121012171514181e32211e1c1c1e3d2c2e24"
      "3249404c4b47404645505a736250556d5645466488656d777b8182814e608d978c7d96737e817cffc0000b08001000180101"
      "1100ffc40017000100030000000000000000000000000006000405ffc4001a10000203010100000000000000000000000004"
      "0203311112ffdd00040001ffda0008010100003f003e95587fffd0895587ffd14095587fffd2cc4aac3fffd3ba95587fffd4"
      "56ac3cc7a7ffd9";
  std::vector<uint8_t> bytes;
  for (size_t i = 0; i < hex.size(); i += 2)
    bytes.push_back(static_cast<uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return bytes;
}

TEST(DataImage, RestartMarkersAreNotTheEnd) {
  const std::vector<uint8_t> bytes = restart_jpeg();
  Image image = decode_image(bytes.data(), bytes.size(), "restart.jpg");
  ASSERT_EQ(image.width, 24);
  for (int y = 0; y < 16; ++y)
    for (int x = 0; x < 24; ++x)
      ASSERT_NEAR(image.rgb[(y * 24 + x) * 3], std::min(255, 10 * x + 4 * y), 16) << x << "," << y;
}

// The decoder leaves the blocks behind a missing restart marker as they are.
TEST(DataImage, WhatIsMissingIsTheSameInEveryRun) {
  std::vector<uint8_t> bytes = restart_jpeg();
  bytes.resize(bytes.size() - 20);  // the last blocks
  bytes.insert(bytes.end(), {0xFF, 0xD9});
  std::set<std::vector<uint8_t>> pictures;
  for (const uint8_t old : {0x00, 0x55, 0xAA}) {
    for (size_t n = 64; n < 4096; n += 16) std::vector<uint8_t>(n, old);  // is what memory holds then
    pictures.insert(decode_image(bytes.data(), bytes.size(), "a.jpg").rgb);
  }
  EXPECT_EQ(pictures.size(), 1u);
}

/// A JPEG without its first segment of this marker.
std::string without_segment(std::string bytes, char marker) {
  const size_t at = bytes.find(std::string{'\xFF', marker});
  const auto byte = [&](size_t i) { return static_cast<size_t>(static_cast<uint8_t>(bytes[i])); };
  size_t end = at + 2 + 256 * byte(at + 2) + byte(at + 3);
  while (marker == '\xDA' && end + 1 < bytes.size() && (byte(end) != 0xFF || byte(end + 1) != 0xD9)) ++end;
  return bytes.erase(at, end - at);
}

Image decode(const std::string& bytes, const std::string& name) {
  return decode_image(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), name);
}

// The decoder takes them all and reads memory that nothing was written to.
TEST(DataImage, JpegsWithoutATableOrAScanAreCorrupt) {
  TempDir dir;
  write_image(dir / "a.jpg", test::gradient(40, 24));
  const std::string bytes = test::read_text(dir / "a.jpg");
  EXPECT_ERROR(decode(without_segment(bytes, '\xDB'), "a.jpg"),
               "a.jpg: corrupt image: a scan without its quantization table");
  EXPECT_ERROR(decode(without_segment(bytes, '\xC4'), "a.jpg"),
               "a.jpg: corrupt image: a scan without its Huffman table");
  EXPECT_ERROR(decode(without_segment(bytes, '\xDA'), "a.jpg"),
               "a.jpg: corrupt image: no scan for a colour component");
  // A scan of the first component alone: the others have none.
  std::string grey = bytes;
  grey.replace(bytes.find("\xFF\xDA"), 14, std::string("\xFF\xDA\0\x08\1\1\0\0\x3F\0", 10));
  EXPECT_ERROR(decode(grey, "a.jpg"), "a.jpg: corrupt image: no scan for a colour component");
}

// The decoder gives no reason, so that the one stands that it is no PNG.
TEST(DataImage, JpegsWithAMalformedSegmentAreNoBadPngs) {
  TempDir dir;
  write_image(dir / "a.jpg", test::gradient(40, 24));
  std::string bytes = test::read_text(dir / "a.jpg");
  const size_t tables = bytes.find("\xFF\xDB");
  bytes.insert(tables + 2 + static_cast<size_t>(static_cast<uint8_t>(bytes[tables + 3])), 1, '\1');
  ++bytes[tables + 3];  // a byte more than two quantization tables
  EXPECT_ERROR(decode(bytes, "a.jpg"), "a.jpg: corrupt image: malformed segment");
}

TEST(DataImage, PngsWithoutTheColourOfAPixelAreCorrupt) {
  using namespace std::string_literals;
  const auto palette_png = [](const std::string& samples) {
    const std::string colours = "PLTE\1\2\3\4\5\6"s, opacity = "tRNS\0"s;  // alpha is dropped
    std::string bytes = test::png_bytes(2, 2, 8, 3, samples);
    return bytes.insert(bytes.find("IDAT") - 4, test::big_endian(6) + colours + test::png_check_sum(colours) +
                                                    test::big_endian(1) + opacity +
                                                    test::png_check_sum(opacity));
  };
  EXPECT_EQ(decode(palette_png("\0\1\1\0"s), "a.png").rgb,
            (std::vector<uint8_t>{1, 2, 3, 4, 5, 6, 4, 5, 6, 1, 2, 3}));
  EXPECT_ERROR(decode(palette_png("\0\1\2\0"s), "a.png"),
               "a.png: corrupt image: a pixel's colour is not in the palette");
}

TEST(DataImage, FlippedBitsOfAPngAreFound) {
  const Image image = test::gradient(24, 24);
  std::string bytes;
  for (uint8_t b : encode_png(image)) bytes += static_cast<char>(b);
  // A chunk that no pixel depends on may be damaged: "tEXt" with a wrong sum, before IDAT.
  const size_t data = bytes.find("IDAT") - 4;
  bytes.insert(data, std::string("\0\0\0\1tEXtx\1\2\3\4", 13));
  auto decode = [](const std::string& png) {
    return decode_image(reinterpret_cast<const uint8_t*>(png.data()), png.size(), "a.png");
  };
  EXPECT_EQ(decode(bytes).rgb, image.rgb);
  for (size_t i = data + 13 + 8; i + 12 < bytes.size(); ++i) {
    std::string broken = bytes;
    broken[i] = static_cast<char>(broken[i] ^ 1 << i % 8);
    EXPECT_ERROR(decode(broken), "a.png: corrupt image: a check sum is wrong");
  }
}

/// What is said of an image with one byte flipped, for every third byte; "" where it is taken. mend(broken,
/// i) may change more after byte i.
template <class F>
std::set<std::string> complaints(const std::string& name, const std::string& bytes, F&& mend) {
  std::set<std::string> found;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    std::string broken = bytes;
    broken[i] = static_cast<char>(broken[i] ^ 0x5A);
    mend(broken, i);
    found.insert(test::error_of([&] {
      const Image image = decode_image(reinterpret_cast<const uint8_t*>(broken.data()), broken.size(), name);
      EXPECT_EQ(image.rgb.size(), static_cast<size_t>(image.width) * image.height * 3);
    }));
  }
  return found;
}

TEST(DataImage, FlippedBytesOfAJpegNeverCrash) {
  TempDir dir;
  write_image(dir / "a.jpg", test::gradient(24, 24));
  complaints("a.jpg", test::read_text(dir / "a.jpg"), [](std::string&, size_t) {});
}

// With a check sum that fits: otherwise no flipped byte gets as far as the decoder.
TEST(DataImage, FlippedBytesOfAPngNeverCrash) {
  std::string bytes;
  for (uint8_t b : encode_png(test::gradient(24, 24))) bytes += static_cast<char>(b);
  const size_t data = bytes.find("IDAT"), end = bytes.find("IEND") - 8;  // of its data
  ASSERT_EQ(bytes.substr(end, 4), test::png_check_sum(bytes.substr(data, end - data)));
  const auto found = complaints("a.png", bytes, [&](std::string& broken, size_t i) {
    for (const auto& [from, to] : {std::pair{size_t{12}, size_t{29}}, {data, end}})  // IHDR, IDAT
      if (i >= from && i < to) broken.replace(to, 4, test::png_check_sum(broken.substr(from, to - from)));
  });
  EXPECT_TRUE(found.count("a.png: corrupt image: bad dist")) << "no flipped byte was unpacked";
}

// FF bytes may stand before any marker, and other segments before the frame.
TEST(DataImage, JpegsWithFillBytesAndTablesInFront) {
  TempDir dir;
  const Image image = test::gradient(40, 24);
  write_image(dir / "a.jpeg", image);
  const std::string bytes = test::read_text(dir / "a.jpeg");
  const size_t frame = bytes.find("\xFF\xC0"), tables = bytes.find("\xFF\xC4"), scan = bytes.find("\xFF\xDA");
  ASSERT_LT(frame, tables);
  ASSERT_LT(tables, scan);
  const std::string filled = bytes.substr(0, frame) + "\xFF\xFF" + bytes.substr(frame, scan - frame) +
                             "\xFF" + bytes.substr(scan),
                    turned = bytes.substr(0, frame) + bytes.substr(tables, scan - tables) +
                             bytes.substr(frame, tables - frame) + bytes.substr(scan);
  for (const std::string& other : {filled, turned}) {
    test::write_text(dir / "b.jpg", other);
    EXPECT_EQ(read_image(dir / "b.jpg").rgb, read_image(dir / "a.jpeg").rgb);
  }
}

TEST(DataImage, BothSidesMustReachTheLeast) {
  TempDir dir;
  test::write_text(dir / "flat.png", test::png_bytes(5, 1, 8, 0, "12345"));
  EXPECT_ERROR(read_image(dir / "flat.png"), "flat.png: image too small: 5x1 px");
}

TEST(DataImage, PixelsMustFillTheirSides) {
  Image image = test::gradient(4, 4);
  image.rgb.pop_back();
  EXPECT_ERROR(encode_png(image), "pixel buffer does not match 4x4x3");
}

TEST(DataImage, FilesBeyondTheLimitAreNotRead) {
  TempDir dir;
  test::write_text(dir / "a.png", "");
  std::filesystem::resize_file(dir / "a.png", (512u << 20) + 1);  // takes no room
  EXPECT_ERROR(read_image(dir / "a.png"), "a.png: larger than 512 MiB");
}

TEST(DataImage, NamesOfImages) {
  for (const char* name : {"a.jpg", "a.JPEG", "a.jpeg", "x/a.Png"}) EXPECT_TRUE(is_image_name(name)) << name;
  for (const char* name : {"a.gif", "jpg", "a.jpg.txt"}) EXPECT_FALSE(is_image_name(name)) << name;
}

}  // namespace
}  // namespace gm
