#include "data/image_header.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>

#include <zlib.h>

namespace gm {
namespace {

uint32_t big_endian(const uint8_t* p, int bytes) {
  uint32_t value = 0;
  for (int i = 0; i < bytes; ++i) value = value << 8 | p[i];
  return value;
}

enum class Walk { end, cut, malformed };  // at the end marker, before it, or between segments

/// Calls f(marker, body, bytes of the body) with every segment of a JPEG: an embedded thumbnail has an end
/// marker of its own.
template <class F>
Walk each_segment(const uint8_t* p, size_t n, F&& f) {
  size_t at = 2;
  bool scan = false;  // inside entropy-coded data, where FF 00 is a data byte and FF D0..D7 a restart
  while (at + 1 < n) {
    uint8_t marker = p[at + 1];
    if (p[at] != 0xFF || (scan && (marker == 0x00 || (marker >= 0xD0 && marker <= 0xD7)))) {
      if (!scan) return Walk::malformed;
      ++at;
    } else if (marker == 0xFF) {
      ++at;  // fill byte
    } else if (marker == 0xD9) {
      return Walk::end;
    } else {
      if (at + 4 > n) return Walk::cut;
      const size_t length = big_endian(p + at + 2, 2);
      if (length >= 2 && at + 2 + length <= n) f(marker, p + at + 4, length - 2);
      at += 2 + length;
      scan = marker == 0xDA || scan;
    }
  }
  return Walk::cut;
}

/// The size of a JPEG, and the tables and scans of one of the kinds that stb decodes (baseline, extended and
/// progressive Huffman).
class JpegParts {
 public:
  void segment(uint8_t marker, const uint8_t* p, size_t n) {
    if (marker == 0xDB)
      for (; n > 0; skip(p, n, p[0] >> 4 ? 129 : 65)) quantizers_[p[0] & 15] = true;
    if (marker == 0xC4)
      for (; n > 16; skip(p, n, entries(p))) (p[0] >> 4 ? ac_ : dc_)[p[0] & 15] = true;
    const bool frame = marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
    if (frame && n >= 5 && width < 0) {
      height = static_cast<int>(big_endian(p + 1, 2));
      width = static_cast<int>(big_endian(p + 3, 2));
    }
    if (marker >= 0xC0 && marker <= 0xC2 && n >= 6) {
      progressive_ = marker == 0xC2;
      for (size_t i = 6; i + 2 < n; i += 3) components_[p[i]] = {p[i + 2] & 15, false};
    }
    if (marker == 0xDA && n > 0 && n >= 4 + 2 * size_t{p[0]}) scan(p);
  }
  std::string fault() const {
    if (!missing_.empty()) return "corrupt image: a scan without its " + missing_;
    for (const auto& [id, component] : components_)
      if (!component.scanned) return "corrupt image: no scan for a colour component";
    return "";
  }
  int width = -1, height = -1;

 private:
  struct Component {
    int quantizer = 0;
    bool scanned = false;
  };
  static size_t entries(const uint8_t* p) {
    size_t sum = 17;
    for (int i = 1; i <= 16; ++i) sum += p[i];
    return sum;
  }
  static void skip(const uint8_t*& p, size_t& n, size_t bytes) {
    bytes = std::min(bytes, n);
    p += bytes;
    n -= bytes;
  }
  void scan(const uint8_t* p) {
    const uint8_t* spectrum = p + 1 + 2 * p[0];  // first and last coefficient, then the bits of precision
    const bool first_dc = !progressive_ || (spectrum[0] == 0 && spectrum[2] >> 4 == 0);
    const bool has_ac = !progressive_ || spectrum[0] > 0;
    for (int i = 0; i < p[0]; ++i) {
      const auto found = components_.find(p[1 + 2 * i]);
      if (found == components_.end()) continue;  // the decoder says so
      const uint8_t tables = p[2 + 2 * i];
      if (!quantizers_[found->second.quantizer]) missing_ = "quantization table";
      if ((first_dc && !dc_[tables >> 4]) || (has_ac && !ac_[tables & 15])) missing_ = "Huffman table";
      found->second.scanned |= first_dc;
    }
  }
  std::array<bool, 16> quantizers_{}, dc_{}, ac_{};
  std::map<int, Component> components_;
  bool progressive_ = false;
  std::string missing_;
};

void read_jpeg(const uint8_t* p, size_t n, ImageHeader& header) {
  JpegParts parts;
  const Walk walk = each_segment(p, n, [&](auto... segment) { parts.segment(segment...); });
  header.width = parts.width;
  header.height = parts.height;
  if (walk == Walk::cut) header.fault = "truncated image";
  if (walk == Walk::end) header.fault = parts.fault();  // what is malformed the decoder names
}

void read_png(const uint8_t* p, size_t n, ImageHeader& header) {
  if (n > 25) {  // the first chunk
    header.width = static_cast<int>(std::min<uint32_t>(big_endian(p + 16, 4), 1u << 30));
    header.height = static_cast<int>(std::min<uint32_t>(big_endian(p + 20, 4), 1u << 30));
    header.palette = p[25] == 3;
  }
  bool end = false, intact = true;
  for (size_t at = 8; at + 12 <= n && !end;) {
    const size_t length = big_endian(p + at, 4);
    const uint8_t* type = p + at + 4;
    const bool whole = length <= n - at - 12, ancillary = type[0] & 0x20;
    end = std::memcmp(type, "IEND", 4) == 0;
    // Of the chunks that pixels depend on: stb checks no sums, so that a flipped bit would become another
    // picture.
    if (!whole ||
        (!ancillary && crc32(0, type, static_cast<uInt>(length) + 4) != big_endian(type + 4 + length, 4)))
      intact = false;
    if (!whole) break;
    at += size_t{12} + length;
  }
  header.fault = !end ? "truncated image" : intact ? "" : "corrupt image: a check sum is wrong";
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

std::vector<uint8_t> fill_palette(const uint8_t* p, size_t n) {
  constexpr size_t kColours = 256;
  std::vector<uint8_t> filled(p, p + 8);
  auto append = [&](const uint8_t* from, size_t bytes) { filled.insert(filled.end(), from, from + bytes); };
  for (size_t at = 8; at + 12 <= n;) {
    const size_t length = big_endian(p + at, 4);
    const uint8_t* type = p + at + 4;
    if (std::memcmp(type, "PLTE", 4) == 0 && length % 3 == 0 && length <= 3 * kColours) {
      // Check sums are left out: stb does not read them.
      const uint8_t colours[] = {0, 0, 3, 0, 'P', 'L', 'T', 'E'},
                    opacity[] = {0, 0, 1, 0, 't', 'R', 'N', 'S'};
      append(colours, sizeof colours);
      append(type + 4, length);
      filled.resize(filled.size() + 3 * kColours - length + 4);
      append(opacity, sizeof opacity);
      filled.resize(filled.size() + length / 3, 255);
      filled.resize(filled.size() + kColours - length / 3 + 4);
    } else if (std::memcmp(type, "tRNS", 4) != 0) {
      append(p + at, length + 12);
    }
    if (std::memcmp(type, "IEND", 4) == 0) break;
    at += length + 12;
  }
  return filled;
}

}  // namespace gm
