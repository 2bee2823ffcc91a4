#include "data/image.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>

#include <zlib.h>

#include "engine/atomic_file.h"
#include "engine/jpeg_decoder.h"
#include "kernels/common/error.h"

#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_MAX_DIMENSIONS 16384
#define STB_IMAGE_IMPLEMENTATION
#include <stb/stb_image.h>
#define STB_IMAGE_WRITE_IMPLEMENTATION
#include <stb/stb_image_write.h>

namespace gm {
namespace {

uint32_t big_endian(const uint8_t* p, int bytes) {
  uint32_t value = 0;
  for (int i = 0; i < bytes; ++i) value = value << 8 | p[i];
  return value;
}

bool is_jpeg(const uint8_t* p, size_t n) { return n >= 3 && p[0] == 0xFF && p[1] == 0xD8 && p[2] == 0xFF; }
/// The kind of JPEG whose three components are YCbCr for certain.
bool is_jfif(const uint8_t* p, size_t n) {
  return is_jpeg(p, n) && n >= 11 && p[3] == 0xE0 && std::memcmp(p + 6, "JFIF", 5) == 0;
}
bool is_png(const uint8_t* p, size_t n) { return n >= 8 && std::memcmp(p, "\x89PNG\r\n\x1a\n", 8) == 0; }

/// stb fills what a short JPEG lacks with grey, so the end marker is looked for here: segment by segment,
/// because an embedded thumbnail has an end marker of its own.
bool jpeg_complete(const uint8_t* p, size_t n) {
  size_t at = 2;
  bool scan = false;  // inside entropy-coded data, where FF 00 is a data byte and FF D0..D7 a restart
  while (at + 1 < n) {
    uint8_t marker = p[at + 1];
    if (p[at] != 0xFF || (scan && (marker == 0x00 || (marker >= 0xD0 && marker <= 0xD7)))) {
      if (!scan) return true;  // malformed between segments: the decoder says how
      ++at;
    } else if (marker == 0xFF) {
      ++at;  // fill byte
    } else if (marker == 0xD9) {
      return true;
    } else {
      if (at + 4 > n) return false;
      at += 2 + big_endian(p + at + 2, 2);
      scan = marker == 0xDA || scan;
    }
  }
  return false;
}

bool png_complete(const uint8_t* p, size_t n) {
  for (size_t at = 8; at + 12 <= n;) {
    if (std::memcmp(p + at + 4, "IEND", 4) == 0) return true;
    at += size_t{12} + big_endian(p + at, 4);
  }
  return false;
}

/// Whether the chunks that pixels depend on are as they were written: stb checks no sums, so that a flipped
/// bit would become another picture. Of a complete PNG.
bool png_intact(const uint8_t* p, size_t n) {
  for (size_t at = 8, length = 0;; at += 12 + length) {
    length = big_endian(p + at, 4);
    if (length > n - at - 12) return false;
    const uint8_t* type = p + at + 4;
    const bool ancillary = type[0] & 0x20;
    if (!ancillary && crc32(0, type, static_cast<uInt>(length) + 4) != big_endian(type + 4 + length, 4))
      return false;
    if (std::memcmp(type, "IEND", 4) == 0) return true;
  }
}

void check_sides(int width, int height, const std::string& name) {
  std::string size = std::to_string(width) + "x" + std::to_string(height) + " px";
  if (std::min(width, height) < kMinSide)
    fail(name + ": image too small: " + size + ", the least is " + std::to_string(kMinSide) + " px a side");
  if (std::max(width, height) > kMaxSide)
    fail(name + ": image too large: " + size + ", the most is " + std::to_string(kMaxSide) + " px a side");
}

/// Width and height from the header alone. stb's own header reader refuses large pictures without saying how
/// large they are, so PNG (fixed place) is read here and JPEG through its frame header.
bool header_size(const uint8_t* p, size_t n, int& width, int& height) {
  if (is_png(p, n)) {
    if (n < 24) return false;
    width = static_cast<int>(std::min<uint32_t>(big_endian(p + 16, 4), 1u << 30));
    height = static_cast<int>(std::min<uint32_t>(big_endian(p + 20, 4), 1u << 30));
    return true;
  }
  for (size_t at = 2; at + 9 < n && p[at] == 0xFF;) {
    uint8_t marker = p[at + 1];
    bool frame = marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
    if (frame) {
      height = static_cast<int>(big_endian(p + at + 5, 2));
      width = static_cast<int>(big_endian(p + at + 7, 2));
      return true;
    }
    at += marker == 0xFF ? 1 : 2 + big_endian(p + at + 2, 2);
  }
  return false;
}

struct FileCloser {
  void operator()(FILE* f) const { std::fclose(f); }
};

}  // namespace

void check_image(const Image& image, const std::string& name) {
  check_sides(image.width, image.height, name);
  if (image.rgb.size() != static_cast<size_t>(image.width) * image.height * 3)
    fail(name + ": pixel buffer does not match " + std::to_string(image.width) + "x" +
         std::to_string(image.height) + "x3");
}

Image decode_image(const uint8_t* bytes, size_t size, const std::string& name, JpegDecoder* card) {
  if (size == 0) fail(name + ": empty file");
  bool jpeg = is_jpeg(bytes, size);
  if (!jpeg && !is_png(bytes, size)) fail(name + ": not a JPEG or PNG image");
  if (static_cast<int64_t>(size) > kMaxFileBytes) fail(name + ": larger than 512 MiB");
  int width = 0, height = 0;
  if (header_size(bytes, size, width, height)) check_sides(width, height, name);
  if (!(jpeg ? jpeg_complete(bytes, size) : png_complete(bytes, size))) fail(name + ": truncated image");
  if (!jpeg && !png_intact(bytes, size)) fail(name + ": corrupt image: a check sum is wrong");
  if (card && is_jfif(bytes, size) && width > 0) {
    Image image{width, height, std::vector<uint8_t>(static_cast<size_t>(width) * height * 3)};
    if (card->decode({bytes, size}, width, height, image.rgb)) return image;
  }
  int channels = 0;
  std::unique_ptr<uint8_t, void (*)(void*)> pixels(
      stbi_load_from_memory(bytes, static_cast<int>(size), &width, &height, &channels, 3), stbi_image_free);
  if (!pixels) {
    const char* reason = stbi_failure_reason();
    if (reason && std::strcmp(reason, "outofmem") == 0)
      throw MachineError(name + ": not enough memory to decode " + std::to_string(width) + "x" +
                         std::to_string(height) + " px");
    fail(name + ": corrupt image: " + (reason ? reason : "unknown reason"));
  }
  check_sides(width, height, name);
  Image image{width, height, {}};
  image.rgb.assign(pixels.get(), pixels.get() + static_cast<size_t>(width) * height * 3);
  return image;
}

Image read_image(const std::string& path, JpegDecoder* card) {
  std::error_code ec;
  auto status = std::filesystem::status(path, ec);
  if (status.type() == std::filesystem::file_type::not_found) fail(path + ": no such file");
  if (std::filesystem::is_directory(status)) fail(path + ": is a folder, expected an image");
  if (std::filesystem::is_other(status)) fail(path + ": is no regular file");  // reading a pipe would hang
  std::unique_ptr<FILE, FileCloser> file(std::fopen(path.c_str(), "rb"));
  if (!file) fail(path + ": cannot open: " + std::strerror(errno));
  auto size = std::filesystem::file_size(path, ec);
  if (ec) fail(path + ": cannot read: " + ec.message());
  if (static_cast<int64_t>(size) > kMaxFileBytes) fail(path + ": larger than 512 MiB");
  std::vector<uint8_t> bytes(size);
  if (std::fread(bytes.data(), 1, size, file.get()) != size) fail(path + ": cannot read: short read");
  return decode_image(bytes.data(), bytes.size(), path, card);
}

namespace {

void append_bytes(void* bytes, void* data, int size) {
  auto* p = static_cast<uint8_t*>(data);
  static_cast<std::vector<uint8_t>*>(bytes)->insert(static_cast<std::vector<uint8_t>*>(bytes)->end(), p,
                                                    p + size);
}

std::vector<uint8_t> encode(const Image& image, const std::string& ext, const std::string& path) {
  check_image(image, path);
  std::vector<uint8_t> out;
  int ok = 0;
  if (ext == ".png") {
    ok = stbi_write_png_to_func(append_bytes, &out, image.width, image.height, 3, image.rgb.data(),
                                image.width * 3);
  } else if (ext == ".jpg" || ext == ".jpeg") {
    ok = stbi_write_jpg_to_func(append_bytes, &out, image.width, image.height, 3, image.rgb.data(), 95);
  } else {
    fail(path + ": cannot write an image with the extension \"" + ext + "\", use .png or .jpg");
  }
  if (!ok) fail(path + ": cannot encode image");
  return out;
}

}  // namespace

std::vector<uint8_t> encode_png(const Image& image) { return encode(image, ".png", "picture"); }

void write_image(const std::string& path, const Image& image) {
  const auto bytes = encode(image, lower_extension(path), path);
  write_file_atomic(path, bytes.data(), bytes.size());
}

std::string lower_extension(const std::string& path) {
  std::string ext = std::filesystem::path(path).extension().string();
  for (char& c : ext) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return ext;
}

bool is_image_name(const std::string& path) {
  std::string ext = lower_extension(path);
  return ext == ".jpg" || ext == ".jpeg" || ext == ".png";
}

bool is_hdf5_name(const std::string& path) {
  const std::string ext = lower_extension(path);
  return ext == ".h5" || ext == ".hdf5";
}

}  // namespace gm
