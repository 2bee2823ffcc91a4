#include "tests/emulated_card/ptx_text.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <stdexcept>

namespace gm::emulated {

namespace {

bool blank(char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; }
bool digit(char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; }

template <class T>
bool read_number(std::string_view s, T& value, int base = 10) {
  const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), value, base);
  return error == std::errc() && end == s.data() + s.size();
}

}  // namespace

void refuse_ptx(const std::string& what, std::string_view text) {
  throw std::runtime_error("PTX: " + what + ": " + std::string(text));
}

std::string_view trim(std::string_view s) {
  while (!s.empty() && blank(s.front())) s.remove_prefix(1);
  while (!s.empty() && blank(s.back())) s.remove_suffix(1);
  return s;
}

std::vector<std::string_view> split(std::string_view s, char at) {
  std::vector<std::string_view> parts;
  int depth = 0;
  size_t begin = 0;
  for (size_t i = 0; i <= s.size(); ++i) {
    if (i < s.size() && (s[i] == '{' || s[i] == '[')) ++depth;
    if (i < s.size() && (s[i] == '}' || s[i] == ']')) --depth;
    if (i < s.size() && (s[i] != at || depth > 0)) continue;
    if (const std::string_view part = trim(s.substr(begin, i - begin)); !part.empty()) parts.push_back(part);
    begin = i + 1;
  }
  return parts;
}

std::vector<std::string_view> split_at_blanks(std::string_view s) {
  std::vector<std::string_view> words;
  for (s = trim(s); !s.empty(); s = trim(s)) {
    const size_t end = static_cast<size_t>(std::find_if(s.begin(), s.end(), blank) - s.begin());
    words.push_back(s.substr(0, end));
    s.remove_prefix(end);
  }
  return words;
}

size_t type_bytes(std::string_view type) {
  size_t bits = 0;
  return read_number(type.substr(1), bits) ? bits / 8 : 0;
}

bool read_immediate(std::string_view s, uint64_t& value) {
  if ((s.size() == 10 && starts(s, "0f")) || (s.size() == 18 && starts(s, "0d")))
    return read_number(s.substr(2), value, 16);
  const bool negative = starts(s, "-");
  if (negative) s.remove_prefix(1);
  const bool hexadecimal = starts(s, "0x");
  if (hexadecimal) s.remove_prefix(2);
  if (!s.empty() && s.back() == 'U') s.remove_suffix(1);
  if (!read_number(s, value, hexadecimal ? 16 : 10)) return false;
  if (negative) value = ~value + 1;
  return true;
}

Declaration read_declaration(std::string_view text) {
  Declaration d;
  size_t count = 1, element = 0;
  bool of_pointee = false;  // behind .ptr stands how that is aligned to which a parameter points
  const auto words = split_at_blanks(text);
  for (size_t i = 0; i < words.size(); ++i) {
    std::string_view word = words[i];
    if (word == ".align") {
      size_t align = 1;
      if (++i == words.size() || !read_number(words[i], align)) refuse_ptx("unknown alignment", text);
      if (!of_pointee) d.align = align;
    } else if (word == ".ptr") {
      of_pointee = true;
    } else if (word.size() > 2 && word.front() == '.' && digit(word[2])) {
      element = type_bytes(word.substr(1));
    } else if (word.front() != '.') {
      if (const size_t bracket = word.find('['); bracket != std::string_view::npos) {
        const std::string_view inside = word.substr(bracket + 1, word.find(']') - bracket - 1);
        count = 0;  // []: as much as the launch says
        if (!inside.empty() && !read_number(inside, count)) refuse_ptx("unknown length", text);
        word = word.substr(0, bracket);
      }
      d.name = std::string(word);
    }
  }
  if (d.name.empty() || element == 0) refuse_ptx("unknown declaration", text);
  d.bytes = element * count;
  d.align = std::max(d.align, count == 1 ? element : size_t{1});
  return d;
}

}  // namespace gm::emulated
