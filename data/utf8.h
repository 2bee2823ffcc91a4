// Text that must be UTF-8.
#pragma once
#include <cstddef>
#include <string>

namespace gm {

/// Place of the first byte at or behind `from` that is not UTF-8; npos: none.
size_t not_utf8(const std::string& text, size_t from = 0);

/// `text` with %E9 for a byte such as 0xE9 that is not UTF-8.
std::string utf8_of(const std::string& text);
/// The bytes that utf8_of() has spelt out are themselves again.
std::string bytes_of(const std::string& utf8);

}  // namespace gm
