#include "data/image.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>

#include "data/file_names.h"
#include "data/image_header.h"
#include "engine/atomic_file.h"
#include "engine/jpeg_decoder.h"
#include "kernels/common/error.h"

#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_MAX_DIMENSIONS 16384
// Zeros: what a broken file leaves out is the same in every run.
#define STBI_MALLOC(size) std::calloc(1, size)
#define STBI_REALLOC(p, size) std::realloc(p, size)
#define STBI_FREE(p) std::free(p)
#define STB_IMAGE_IMPLEMENTATION
#include <stb/stb_image.h>
#define STB_IMAGE_WRITE_IMPLEMENTATION
#include <stb/stb_image_write.h>

namespace gm {
namespace {

void check_sides(int width, int height, const std::string& name) {
  std::string size = std::to_string(width) + "x" + std::to_string(height) + " px";
  if (std::min(width, height) < kMinSide)
    fail(name + ": image too small: " + size + ", the least is " + std::to_string(kMinSide) + " px a side");
  if (std::max(width, height) > kMaxSide)
    fail(name + ": image too large: " + size + ", the most is " + std::to_string(kMaxSide) + " px a side");
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

namespace {

/// By stb. A colour that the palette of a PNG lacks is transparent in the filled one.
Image decode_pixels(const uint8_t* bytes, size_t size, const ImageHeader& header, const std::string& name) {
  const std::vector<uint8_t> filled = header.palette ? fill_palette(bytes, size) : std::vector<uint8_t>();
  if (header.palette) bytes = filled.data(), size = filled.size();
  int width = header.width, height = header.height, channels = 0;
  std::unique_ptr<uint8_t, void (*)(void*)> pixels(
      stbi_load_from_memory(bytes, static_cast<int>(size), &width, &height, &channels,
                            header.palette ? 4 : 3),
      stbi_image_free);
  if (!pixels) {
    const char* reason = stbi_failure_reason();
    if (reason && std::strcmp(reason, "outofmem") == 0)
      throw MachineError(name + ": not enough memory to decode " + std::to_string(width) + "x" +
                         std::to_string(height) + " px");
    // stb tries PNG first; of some segments of a JPEG it only says that they are not what it expects.
    if (header.kind == ImageHeader::jpeg && reason && std::strcmp(reason, "bad png sig") == 0)
      reason = "malformed segment";
    fail(name + ": corrupt image: " + (reason ? reason : "unknown reason"));
  }
  check_sides(width, height, name);
  Image image{width, height, {}};
  const size_t count = static_cast<size_t>(width) * height;
  const uint8_t* p = pixels.get();
  if (!header.palette) image.rgb.assign(p, p + count * 3);
  for (size_t i = 0; header.palette && i < count; ++i, p += 4) {
    if (p[3] == 0) fail(name + ": corrupt image: a pixel's colour is not in the palette");
    image.rgb.insert(image.rgb.end(), p, p + 3);
  }
  return image;
}

}  // namespace

Image decode_image(const uint8_t* bytes, size_t size, const std::string& name, JpegDecoder* card) {
  if (size == 0) fail(name + ": empty file");
  // The header is read here: stb's own reader refuses large pictures without saying how large they are.
  const ImageHeader header = read_image_header(bytes, size);
  if (header.kind == ImageHeader::unknown) fail(name + ": not a JPEG or PNG image");
  if (static_cast<int64_t>(size) > kMaxFileBytes) fail(name + ": larger than 512 MiB");
  const int width = header.width, height = header.height;
  if (width >= 0) check_sides(width, height, name);
  if (!header.fault.empty()) fail(name + ": " + header.fault);
  if (card && header.jfif && width > 0) {
    Image image{width, height, std::vector<uint8_t>(static_cast<size_t>(width) * height * 3)};
    if (card->decode({bytes, size}, width, height, image.rgb)) return image;
  }
  return decode_pixels(bytes, size, header, name);
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

}  // namespace gm
