#include "data/csv.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>

#include "data/utf8.h"
#include "engine/atomic_file.h"
#include "kernels/common/error.h"

namespace gm {
namespace {

/// Takes one record off `text` at `at`; advances `at` past its line end and `line` past its line breaks.
std::vector<std::string> take_record(const std::string& text, size_t& at, int64_t& line,
                                     const std::string& path) {
  std::vector<std::string> cells;
  std::string cell;
  bool quoted = false;
  int64_t first_line = line;
  auto finish_cell = [&] {
    if (!quoted) {
      size_t a = cell.find_first_not_of(" \t"), b = cell.find_last_not_of(" \t");
      cell = a == std::string::npos ? "" : cell.substr(a, b - a + 1);
    }
    cells.push_back(std::move(cell));
    cell.clear();
    quoted = false;
  };
  while (at < text.size()) {
    char c = text[at];
    if (c == '"' && !quoted && cell.find_first_not_of(" \t") == std::string::npos) {
      quoted = true;
      cell.clear();
      for (++at;; ++at) {
        if (at >= text.size()) fail(path + ":" + std::to_string(first_line) + ": a quote is never closed");
        if (text[at] == '\n') ++line;
        if (text[at] != '"') {
          cell += text[at];
        } else if (at + 1 < text.size() && text[at + 1] == '"') {
          cell += text[++at];
        } else {
          break;
        }
      }
      ++at;
    } else if (c == ',') {
      finish_cell();
      ++at;
    } else if (c == '\n' || c == '\r') {
      at += (c == '\r' && at + 1 < text.size() && text[at + 1] == '\n') ? 2 : 1;
      ++line;
      finish_cell();
      return cells;
    } else {
      // Blanks between a closing quote and the comma are not part of the cell.
      if (!quoted || (c != ' ' && c != '\t')) cell += c;
      ++at;
    }
  }
  finish_cell();
  return cells;
}

}  // namespace

CsvTable::CsvTable(const std::string& path, const std::vector<std::string>& names) : path_(path) {
  if (std::filesystem::is_directory(path)) fail(path + ": is a folder, expected a CSV file");
  const std::string text = read_file(path);
  if (text.find('\0') != std::string::npos) fail(path + ": not a text file");
  if (const size_t bad = not_utf8(text); bad != std::string::npos)
    fail(path + ":" +
         std::to_string(1 + std::count(text.begin(), text.begin() + static_cast<long>(bad), '\n')) +
         ": not UTF-8 text; save the table as UTF-8");
  size_t at = text.compare(0, 3, "\xEF\xBB\xBF") == 0 ? 3 : 0;
  int64_t line = 1;
  while (at < text.size()) {
    int64_t start = line;
    std::vector<std::string> cells = take_record(text, at, line, path);
    if (cells.size() == 1 && cells[0].empty()) continue;
    if (header_.empty()) {
      header_ = std::move(cells);
      for (size_t k = 0; k < header_.size(); ++k)
        if (names.empty() || std::find(names.begin(), names.end(), header_[k]) != names.end())
          columns_.push_back(k);
      continue;
    }
    if (cells.size() != header_.size())
      fail(path + ":" + std::to_string(start) + ": " + std::to_string(cells.size()) +
           " cells, but the header has " + std::to_string(header_.size()));
    lines_.push_back(start);
    for (size_t k : columns_) cells_.push_back(std::move(cells[k]));
  }
  if (header_.empty()) fail(path + ": empty file, expected a CSV header");
}

int CsvTable::column(const std::string& name) const {
  int found = -1;
  for (size_t k = 0; k < columns_.size(); ++k) {
    if (header_[columns_[k]] != name) continue;
    if (found >= 0) fail(path_ + ":1: two columns are called '" + name + "'");
    found = static_cast<int>(k);
  }
  return found;
}

std::string CsvTable::column_list() const { return fmt::format("{}", fmt::join(header_, ", ")); }

std::string csv_cell(const std::string& text) {
  auto blank = [](char c) { return c == ' ' || c == '\t'; };
  const bool outer_blank = !text.empty() && (blank(text.front()) || blank(text.back()));
  if (text.find_first_of(",\"\r\n") == std::string::npos && !outer_blank) return text;
  std::string quoted = "\"";
  for (char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

namespace {
// std::from_chars takes no plus sign, which declinations have.
template <class T>
bool parse_whole(const std::string& text, T& value) {
  const bool plus = text.size() > 1 && text[0] == '+' && text[1] != '-';
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data() + plus, end, value);
  return result.ec == std::errc() && result.ptr == end;
}
}  // namespace

bool parse_int(const std::string& text, int64_t& value) { return parse_whole(text, value); }

bool parse_double(const std::string& text, double& value) {
  return parse_whole(text, value) && std::isfinite(value);
}

}  // namespace gm
