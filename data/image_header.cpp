#include "data/image_header.h"

#include <algorithm>
#include <cstring>

#include <zlib.h>

namespace gm {
namespace {

uint32_t big_endian(const uint8_t* p, int bytes) {
  uint32_t value = 0;
  for (int i = 0; i < bytes; ++i) value = value << 8 | p[i];
  return value;
}

/// Segment by segment, because an embedded thumbnail has a frame and an end marker of its own.
void read_jpeg(const uint8_t* p, size_t n, ImageHeader& header) {
  size_t at = 2;
  bool scan = false;  // inside entropy-coded data, where FF 00 is a data byte and FF D0..D7 a restart
  while (at + 1 < n) {
    const uint8_t marker = p[at + 1];
    if (p[at] != 0xFF || (scan && (marker == 0x00 || (marker >= 0xD0 && marker <= 0xD7)))) {
      if (!scan) header.complete = true;  // malformed between segments: the decoder says how
      if (!scan) return;
      ++at;
    } else if (marker == 0xFF) {
      ++at;  // fill byte
    } else if (marker == 0xD9) {
      header.complete = true;
      return;
    } else {
      if (at + 4 > n) return;
      const bool frame =
          marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
      if (frame && !scan && header.width < 0 && at + 9 < n) {
        header.height = static_cast<int>(big_endian(p + at + 5, 2));
        header.width = static_cast<int>(big_endian(p + at + 7, 2));
      }
      at += 2 + big_endian(p + at + 2, 2);
      scan = marker == 0xDA || scan;
    }
  }
}

void read_png(const uint8_t* p, size_t n, ImageHeader& header) {
  if (n >= 24) {  // the first chunk
    header.width = static_cast<int>(std::min<uint32_t>(big_endian(p + 16, 4), 1u << 30));
    header.height = static_cast<int>(std::min<uint32_t>(big_endian(p + 20, 4), 1u << 30));
  }
  for (size_t at = 8; at + 12 <= n && !header.complete;) {
    const size_t length = big_endian(p + at, 4);
    const uint8_t* type = p + at + 4;
    const bool whole = length <= n - at - 12, ancillary = type[0] & 0x20;
    header.complete = std::memcmp(type, "IEND", 4) == 0;
    if (!whole ||
        (!ancillary && crc32(0, type, static_cast<uInt>(length) + 4) != big_endian(type + 4 + length, 4)))
      header.intact = false;
    if (!whole) return;
    at += size_t{12} + length;
  }
}

}  // namespace

ImageHeader read_image_header(const uint8_t* bytes, size_t size) {
  ImageHeader header;
  if (size >= 3 && bytes[0] == 0xFF && bytes[1] == 0xD8 && bytes[2] == 0xFF) {
    header.kind = ImageHeader::jpeg;
    header.jfif = size >= 11 && bytes[3] == 0xE0 && std::memcmp(bytes + 6, "JFIF", 5) == 0;
    read_jpeg(bytes, size, header);
  } else if (size >= 8 && std::memcmp(bytes, "\x89PNG\r\n\x1a\n", 8) == 0) {
    header.kind = ImageHeader::png;
    read_png(bytes, size, header);
  }
  return header;
}

}  // namespace gm
