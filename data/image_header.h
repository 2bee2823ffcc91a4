// What the bytes of a JPEG or PNG say before a pixel is decoded: its size, and what is wrong with it that
// stb decodes without a word. Where something is missing, stb reads memory that nothing was written to, or
// fills in grey.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace gm {

struct ImageHeader {
  enum Kind { unknown, jpeg, png } kind = unknown;
  bool jfif = false;            // the kind of JPEG whose three components are YCbCr for certain
  bool palette = false;         // a PNG whose pixels are indices of a palette
  int width = -1, height = -1;  // -1: not found
  /// Why it is not to be decoded: it ends early, a check sum is wrong, or a JPEG lacks tables or scans that
  /// it needs. "" where nothing of the kind is found.
  std::string fault;
};

ImageHeader read_image_header(const uint8_t* bytes, size_t size);

/// The file of a palette PNG without a fault, with 256 colours, of which those that it lacks are the only
/// transparent ones.
std::vector<uint8_t> fill_palette(const uint8_t* bytes, size_t size);

}  // namespace gm
