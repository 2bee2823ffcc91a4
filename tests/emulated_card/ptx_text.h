// PTX as text: words, lists, numbers, declarations.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace gm::emulated {

/// Throws std::runtime_error: what, and the text that it is about.
[[noreturn]] void refuse_ptx(const std::string& what, std::string_view text);

std::string_view trim(std::string_view s);
inline bool starts(std::string_view s, std::string_view with) { return s.substr(0, with.size()) == with; }

/// What stands between `at` outside of brackets and braces; empty parts are left out. Blanks: any of them.
std::vector<std::string_view> split(std::string_view s, char at);
std::vector<std::string_view> split_at_blanks(std::string_view s);

/// Bytes of "u32"; 0 of "pred".
size_t type_bytes(std::string_view type);

/// The bits of 12, -3, 0x1F, 0f3F800000 (f32) and 0d3FF0000000000000 (f64); false for anything else.
bool read_immediate(std::string_view s, uint64_t& value);

/// A variable, or a kernel's parameter.
struct Declaration {
  std::string name;
  size_t bytes = 0, align = 1;
};
/// Of ".shared .align 4 .b8 s[64]" and ".param .u64 name".
Declaration read_declaration(std::string_view text);

inline size_t round_up(size_t value, size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace gm::emulated
