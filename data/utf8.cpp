#include "data/utf8.h"

#include <charconv>
#include <cstdint>

namespace gm {

size_t not_utf8(const std::string& text, size_t from) {
  const auto byte = [&](size_t at) { return static_cast<uint8_t>(text[at]); };
  for (size_t at = from; at < text.size();) {
    const uint8_t first = byte(at);
    const size_t more = first < 0x80   ? 0
                        : first < 0xC2 ? 4
                        : first < 0xE0 ? 1
                        : first < 0xF0 ? 2
                        : first < 0xF5 ? 3
                                       : 4;
    if (more == 4 || at + more >= text.size()) return at;
    for (size_t k = 1; k <= more; ++k)
      if ((byte(at + k) & 0xC0) != 0x80) return at;
    // Longer than need be, surrogates, beyond U+10FFFF.
    if ((first == 0xE0 && byte(at + 1) < 0xA0) || (first == 0xED && byte(at + 1) >= 0xA0) ||
        (first == 0xF0 && byte(at + 1) < 0x90) || (first == 0xF4 && byte(at + 1) >= 0x90))
      return at;
    at += more + 1;
  }
  return std::string::npos;
}

std::string utf8_of(const std::string& text) {
  constexpr const char* kDigits = "0123456789ABCDEF";
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t bad = not_utf8(text, at);
    out += text.substr(at, bad - at);
    if (bad == std::string::npos) break;
    const auto byte = static_cast<uint8_t>(text[bad]);
    out += {'%', kDigits[byte >> 4], kDigits[byte & 15]};
    at = bad + 1;
  }
  return out;
}

std::string bytes_of(const std::string& utf8) {
  std::string out;
  for (size_t at = 0; at < utf8.size(); ++at) {
    uint8_t byte = 0;
    const char* hex = utf8.data() + at + 1;
    if (utf8[at] == '%' && at + 2 < utf8.size() && std::from_chars(hex, hex + 2, byte, 16).ptr == hex + 2 &&
        byte >= 0x80) {
      out += static_cast<char>(byte);
      at += 2;
    } else {
      out += utf8[at];
    }
  }
  return out;
}

}  // namespace gm
