// 8-bit RGB images and the JPEG and PNG files they live in.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace gm {

class JpegDecoder;

/// One picture: rgb is (height, width, 3), row-major, 0..255. (H, W, C) is NHWC without N.
struct Image {
  int width = 0, height = 0;
  std::vector<uint8_t> rgb;
};

/// Limits that decoding enforces: 2 .. 16384 px a side, files up to 512 MiB.
inline constexpr int kMinSide = 2, kMaxSide = 16384;
inline constexpr int64_t kMaxFileBytes = int64_t{512} << 20;

/// Decodes a JPEG or PNG. Grey is replicated to RGB, 16-bit samples keep their high byte, alpha is dropped.
/// `name` is what messages call it. Throws gm::Error on: not a JPEG or PNG, truncated, corrupt, outside the
/// limits (checked from the header, before any pixel is decoded). `card` may decode JPEG files in the
/// processor's place; those that it does not take are the processor's.
Image decode_image(const uint8_t* bytes, size_t size, const std::string& name, JpegDecoder* card = nullptr);

/// Reads and decodes the file; also throws when it is missing, unreadable or empty.
Image read_image(const std::string& path, JpegDecoder* card = nullptr);

/// Throws gm::Error unless the picture is within the limits and rgb has width * height * 3 bytes.
void check_image(const Image& image, const std::string& name);

/// The bytes of a PNG file.
std::vector<uint8_t> encode_png(const Image& image);

/// Writes PNG or JPEG (quality 95) by the extension of `path` (.png, .jpg, .jpeg), atomically.
void write_image(const std::string& path, const Image& image);

}  // namespace gm
