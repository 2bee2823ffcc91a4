#include "data/file_datasets.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <map>

#include "data/csv.h"
#include "data/file_names.h"
#include "data/utf8.h"
#include "kernels/common/error.h"

namespace gm {
namespace fs = std::filesystem;
namespace {

/// More classes than any morphology scheme has: an id column passed off as labels is caught here.
constexpr int64_t kMaxClasses = 10000;

std::string find_by_id(const fs::path& folder, const std::string& id) {
  std::string stem = (folder / "images" / id).string();
  for (const char* ext : {".jpg", ".jpeg", ".png"})
    if (fs::exists(stem + ext)) return stem + ext;
  return stem + ".jpg";
}

struct Labels {
  std::vector<int> index;
  std::vector<std::string> names;
  SoftLabels soft = {};
};

/// As pandas, databases and astropy write what is missing.
bool missing(const std::string& cell) {
  return cell.empty() || cell == "nan" || cell == "NaN" || cell == "null" || cell == "NULL" || cell == "--";
}

/// A label that says so: it is neither a name nor an index.
bool unlabelled(const std::string& cell) { return missing(cell) || cell == "-1"; }

/// Labels that are class names: looked up in `names`, or, when that is empty, collected and sorted.
Labels named_labels(const CsvTable& table, int column, std::vector<std::string> names) {
  bool given = !names.empty();
  if (!given) {
    for (int64_t r = 0; r < table.rows(); ++r)
      if (!unlabelled(table.cell(r, column))) names.push_back(table.cell(r, column));
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
    if (static_cast<int64_t>(names.size()) > kMaxClasses)
      fail(table.where(0) + ": more than " + std::to_string(kMaxClasses) + " different labels");
  }
  std::map<std::string, int> lookup;
  for (size_t i = 0; i < names.size(); ++i) lookup.emplace(names[i], static_cast<int>(i));
  Labels labels{std::vector<int>(table.rows(), -1), std::move(names)};
  for (int64_t r = 0; r < table.rows(); ++r) {
    const std::string& cell = table.cell(r, column);
    if (unlabelled(cell)) continue;
    auto found = lookup.find(cell);
    if (found == lookup.end()) fail_unknown_class(table.where(r), cell, labels.names);
    labels.index[r] = found->second;
  }
  return labels;
}

/// A class index; tables that had gaps hold "3.0".
bool parse_label(const std::string& cell, int64_t& value) {
  double number = 0;
  if (parse_int(cell, value)) return true;
  if (!parse_double(cell, number) || number != std::trunc(number) || std::abs(number) > 1e15) return false;
  value = static_cast<int64_t>(number);
  return true;
}

/// Labels that are class indices; `class_column` (-1: none) gives their names, which must agree between rows.
Labels integer_labels(const CsvTable& table, int column, int class_column,
                      const std::vector<std::string>& given) {
  Labels labels{std::vector<int>(table.rows(), -1), given};
  for (int64_t r = 0; r < table.rows(); ++r) {
    const std::string& cell = table.cell(r, column);
    if (missing(cell)) continue;
    int64_t value = 0;
    if (!parse_label(cell, value)) fail(table.where(r) + ": label \"" + cell + "\" is not an integer");
    int64_t limit = given.empty() ? kMaxClasses : static_cast<int64_t>(given.size());
    if (value < -1 || value >= limit)
      fail(table.where(r) + ": label " + cell + " is not a class (0.." + std::to_string(limit - 1) + ")");
    labels.index[r] = static_cast<int>(value);
    if (!given.empty() || value < 0) continue;
    for (size_t k = labels.names.size(); k <= static_cast<size_t>(value); ++k) labels.names.emplace_back();
    if (class_column < 0 || missing(table.cell(r, class_column))) continue;
    std::string& name = labels.names[value];
    if (name.empty()) name = table.cell(r, class_column);
    if (name != table.cell(r, class_column))
      fail(table.where(r) + ": label " + cell + " is class \"" + table.cell(r, class_column) +
           "\" here but \"" + name + "\" before");
  }
  for (size_t k = 0; k < labels.names.size(); ++k)
    if (labels.names[k].empty()) labels.names[k] = std::to_string(k);
  check_distinct(table.path(), labels.names);
  return labels;
}

/// Class indices of a catalog that names them, for a model that knows its classes: met by name, since another
/// catalog may number them differently.
Labels renumbered_labels(const CsvTable& table, int column, int class_column,
                         const std::vector<std::string>& given) {
  Labels labels = integer_labels(table, column, class_column, {});
  if (only_numbered(labels.names)) return integer_labels(table, column, -1, given);
  for (int64_t r = 0; r < table.rows(); ++r) {
    int& index = labels.index[r];
    if (index < 0) continue;
    const std::string& name = labels.names[static_cast<size_t>(index)];
    const auto found = std::find(given.begin(), given.end(), name);
    const bool numbered = name == std::to_string(index) && index < static_cast<int>(given.size());
    if (found == given.end() && !numbered) fail_unknown_class(table.where(r), name, given);
    if (found != given.end()) index = static_cast<int>(found - given.begin());
  }
  labels.names = given;
  return labels;
}

/// A column for each class that the model knows: shares of votes, or 1 in that of the row's class.
Labels shared_labels(const CsvTable& table, const std::vector<std::string>& given) {
  Labels labels{std::vector<int>(table.rows(), -1), given, {table.rows(), given}};
  std::vector<int> columns;
  for (const std::string& name : given) columns.push_back(table.column(name));
  std::vector<float> shares(given.size());
  for (int64_t r = 0; r < table.rows(); ++r) {
    for (size_t k = 0; k < columns.size(); ++k) {
      const std::string& cell = table.cell(r, columns[k]);
      double value = 0;
      if (!missing(cell) && !parse_double(cell, value))
        fail(table.where(r) + ": " + given[k] + " is \"" + cell + "\", not a share from 0 to 1");
      shares[k] = static_cast<float>(value);
    }
    labels.index[r] = labels.soft.set(r, shares, table.where(r));
  }
  labels.soft.finish();
  return labels;
}

/// `label` counts: names, or indices to which `class` gives the names. Alone, or beside an empty `label`,
/// `class` does.
Labels read_labels(const CsvTable& table, const OpenOptions& options) {
  const int label = table.column("label"), name = table.column("class");
  const auto& given = options.classes;
  if (options.labels && label < 0 && name < 0 && !given.empty() &&
      std::all_of(given.begin(), given.end(), [&](const auto& c) { return table.column(c) >= 0; }))
    return shared_labels(table, given);
  if (!options.labels || (label < 0 && name < 0))
    return {std::vector<int>(table.rows(), -1), options.classes};
  int64_t first = 0, value = 0;
  while (label >= 0 && first < table.rows() && missing(table.cell(first, label))) ++first;
  if (label < 0 || (first == table.rows() && name >= 0)) return named_labels(table, name, options.classes);
  while (first < table.rows() && unlabelled(table.cell(first, label))) ++first;
  // The first label decides; a later one of the other kind is then an error with its line.
  if (first < table.rows() && !parse_label(table.cell(first, label), value))
    return named_labels(table, label, options.classes);
  if (name >= 0 && !only_numbered(options.classes))
    return renumbered_labels(table, label, name, options.classes);
  return integer_labels(table, label, name, options.classes);
}

/// A column by its name in either case: tables made from FITS files write RA and DEC.
std::vector<double> read_degrees(const CsvTable& table, const char* name, const char* upper) {
  std::vector<double> values;
  int column = table.column(name);
  if (column < 0) column = table.column(upper);
  if (column < 0) return values;
  values.assign(table.rows(), std::numeric_limits<double>::quiet_NaN());
  for (int64_t r = 0; r < table.rows(); ++r) {
    const std::string& cell = table.cell(r, column);
    if (missing(cell)) continue;
    if (!parse_double(cell, values[r]))
      fail(table.where(r) + ": " + name + " \"" + cell + "\" is not a number");
  }
  return values;
}

}  // namespace

std::string FileListDataset::id(int64_t i) const {
  // Tables, HDF5 and JSON hold UTF-8; names of files may be anything.
  return utf8_of(fs::path(files_[i]).stem().string());
}

FolderDataset::FolderDataset(const std::string& folder, const OpenOptions& options)
    : FileListDataset(folder, {}, options) {
  std::error_code ec;
  int64_t subfolders = 0;
  for (fs::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec))
    // What is neither a folder nor a file, such as a link to nowhere, is for the reader to report.
    if (std::error_code none; it->is_directory(none)) ++subfolders;
    // A leading dot marks temporary files and the droppings of file managers.
    else if (is_image_name(it->path().string()) && it->path().filename().string()[0] != '.')
      files_.push_back(it->path().string());
  if (ec) fail(folder + ": cannot list: " + ec.message());
  if (files_.empty())
    fail(folder + ": no JPEG or PNG images and no labels.csv in this folder" +
         (subfolders ? ", and its subfolders are not searched: name them" : ""));
  std::sort(files_.begin(), files_.end());
}

CatalogDataset::CatalogDataset(const std::string& csv, const OpenOptions& options)
    : FileListDataset(csv, {}, options) {
  // Catalogs may have hundreds of other columns.
  std::vector<std::string> names{"id_str", "file_loc", "label", "class", "ra", "RA", "dec", "DEC"};
  names.insert(names.end(), options.classes.begin(), options.classes.end());
  const CsvTable table(csv, names);
  int id = table.column("id_str"), file = table.column("file_loc");
  if (id < 0 && file < 0)
    fail(csv + ": needs a column \"file_loc\" or \"id_str\"; it has " + table.column_list());
  if (table.rows() == 0) fail(csv + ": no rows");
  fs::path folder = fs::path(csv).parent_path();
  for (int64_t r = 0; r < table.rows(); ++r) {
    std::string loc = file >= 0 ? table.cell(r, file) : "";
    std::string name = id >= 0 ? table.cell(r, id) : fs::path(loc).stem().string();
    if (loc.empty() && name.empty()) fail(table.where(r) + ": neither id_str nor file_loc");
    files_.push_back(loc.empty() ? find_by_id(folder, name) : (folder / loc).string());
    ids_.push_back(name.empty() ? fs::path(loc).stem().string() : name);
  }
  Labels labels = read_labels(table, options);
  labels_ = std::move(labels.index);
  soft_ = std::move(labels.soft);
  classes_ = std::move(labels.names);
  sky_ = {read_degrees(table, "ra", "RA"), read_degrees(table, "dec", "DEC")};
}

}  // namespace gm
