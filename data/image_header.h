// What the bytes of a JPEG or PNG file say of the picture before a pixel is decoded.
#pragma once
#include <cstddef>
#include <cstdint>

namespace gm {

struct ImageHeader {
  enum Kind { unknown, jpeg, png } kind = unknown;
  bool jfif = false;            // the kind of JPEG whose three components are YCbCr for certain
  int width = -1, height = -1;  // -1: not found
  bool complete = false;        // has its end: decoders fill with grey what a short JPEG lacks
  /// PNG: the chunks that pixels depend on are as they were written. stb checks no sums, so that a flipped bit
  /// would become another picture.
  bool intact = true;
};

ImageHeader read_image_header(const uint8_t* bytes, size_t size);

}  // namespace gm
