// A small CSV table: comma separated, RFC 4180 quotes, LF or CRLF, an optional byte order mark.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace gm {

/// A CSV file in memory. Blank lines are skipped; cells are trimmed of surrounding blanks unless
/// quoted.
class CsvTable {
 public:
  /// Reads `path`: all columns, or those of the given names alone. Throws gm::Error naming file and line:
  /// unreadable, empty, an unclosed quote, a row whose number of cells differs from the header's.
  explicit CsvTable(const std::string& path, const std::vector<std::string>& names = {});

  int64_t rows() const { return static_cast<int64_t>(lines_.size()); }
  /// Index among the columns read of the one called `name`, or -1. Throws gm::Error when two are.
  int column(const std::string& name) const;
  /// All column names of the file, for messages: "a, b, c".
  std::string column_list() const;
  const std::string& cell(int64_t row, int column) const { return cells_[row * columns_.size() + column]; }
  const std::string& path() const { return path_; }
  /// "path:line", the line being where the row starts (1-based, header = 1).
  std::string where(int64_t row) const { return path_ + ":" + std::to_string(lines_[row]); }

 private:
  std::string path_;
  std::vector<std::string> header_, cells_;  // cells of the columns read, row by row
  std::vector<size_t> columns_;              // read: places in the header
  std::vector<int64_t> lines_;
};

/// `text` as one CSV cell: quoted where needed.
std::string csv_cell(const std::string& text);

/// Strict conversions of a whole cell: false when anything else than the number is there.
bool parse_int(const std::string& text, int64_t& value);
bool parse_double(const std::string& text, double& value);

}  // namespace gm
