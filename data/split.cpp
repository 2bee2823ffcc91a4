#include "data/split.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numbers>
#include <numeric>
#include <unordered_map>

#include "data/csv.h"
#include "engine/atomic_file.h"
#include "kernels/common/error.h"
#include "kernels/common/philox.h"

namespace gm {
namespace {

int64_t find_root(std::vector<int64_t>& parent, int64_t i) {
  while (parent[i] != i) i = parent[i] = parent[parent[i]];
  return i;
}

/// Key of a cell of space. A collision only adds candidates, whose distance is measured anyway.
uint64_t cell_key(int64_t x, int64_t y, int64_t z) {
  return (static_cast<uint64_t>(x) * 0x9E3779B97F4A7C15u) ^ (static_cast<uint64_t>(y) * 0xC2B2AE3D27D4EB4Fu) ^
         (static_cast<uint64_t>(z) * 0x165667B19E3779F9u);
}

}  // namespace

std::vector<int64_t> sky_groups(const Dataset& data, double arcsec) {
  std::vector<int64_t> parent(data.size());
  std::iota(parent.begin(), parent.end(), 0);
  // Unit vectors have no seam at 0h and no poles; within an arcsecond, chord = angle.
  const double degree = std::numbers::pi / 180, chord = arcsec / 3600 * degree;
  using Vector = std::array<double, 3>;
  std::unordered_map<uint64_t, std::vector<std::pair<int64_t, Vector>>> cells;  // side = chord
  for (int64_t row = 0; arcsec > 0 && row < data.size(); ++row) {
    double ra, dec;
    if (!data.sky(row, ra, dec)) continue;
    Vector p = {std::cos(dec * degree) * std::cos(ra * degree),
                std::cos(dec * degree) * std::sin(ra * degree), std::sin(dec * degree)};
    int64_t x = std::floor(p[0] / chord), y = std::floor(p[1] / chord), z = std::floor(p[2] / chord);
    for (int k = 0; k < 27; ++k) {
      auto near = cells.find(cell_key(x + k % 3 - 1, y + k / 3 % 3 - 1, z + k / 9 - 1));
      if (near == cells.end()) continue;
      for (auto& [other, q] : near->second)
        if (std::hypot(p[0] - q[0], p[1] - q[1], p[2] - q[2]) <= chord)
          parent[find_root(parent, row)] = find_root(parent, other);
    }
    cells[cell_key(x, y, z)].push_back({row, p});
  }
  std::vector<int64_t> group(data.size());
  std::map<int64_t, int64_t> number;
  for (int64_t row = 0; row < data.size(); ++row) {
    int64_t next = static_cast<int64_t>(number.size());
    group[row] = number.emplace(find_root(parent, row), next).first->second;
  }
  return group;
}

std::map<int, std::vector<std::vector<int64_t>>> shuffled_objects(const Dataset& data, uint64_t seed,
                                                                  double same_sky_arcsec) {
  const std::vector<int64_t> group = sky_groups(data, same_sky_arcsec);
  std::map<int64_t, std::vector<int64_t>> members;
  std::map<int, std::vector<int64_t>> strata;
  for (int64_t row = 0; row < data.size(); ++row) {
    if (data.label(row) < 0) continue;
    auto& rows = members[group[row]];
    if (rows.empty()) strata[data.label(row)].push_back(group[row]);
    rows.push_back(row);
  }
  if (strata.empty()) fail(data.path() + ": no labelled images to split into training and validation");
  std::map<int, std::vector<std::vector<int64_t>>> objects;
  for (auto& [label, groups] : strata) {
    PhiloxStream rng(seed, RngUse::split, static_cast<uint32_t>(label));
    for (size_t i = groups.size(); i > 1; --i)
      std::swap(groups[i - 1], groups[rng.below(static_cast<uint32_t>(i))]);
    for (int64_t g : groups) objects[label].push_back(std::move(members[g]));
  }
  return objects;
}

Split make_split(const Dataset& data, const SplitConfig& config) {
  if (!(config.val >= 0 && config.test >= 0 && config.val + config.test < 1))
    fail("split: val and test must be 0 or more and leave something to train on (val + test < 1)");
  Split split;
  for (auto& [label, of_class] : shuffled_objects(data, config.seed, config.same_sky_arcsec)) {
    int64_t images = 0, objects = static_cast<int64_t>(of_class.size());
    for (const auto& rows : of_class) images += static_cast<int64_t>(rows.size());
    int64_t parts = 1 + (config.val > 0) + (config.test > 0);
    auto target = [&](double share) {
      int64_t n = std::llround(share * static_cast<double>(images));
      return share > 0 && objects >= parts ? std::max<int64_t>(n, 1) : n;
    };
    int64_t val = target(config.val), test = target(config.test);
    for (size_t i = 0; i < of_class.size(); ++i) {
      const auto& rows = of_class[i];
      const size_t left = of_class.size() - i;
      bool last = left == 1;  // kept for training, so that no class is only in validation
      const bool to_val = val > 0 && (left > 2 || test <= 0);
      auto& part = last ? split.train : to_val ? split.val : test > 0 ? split.test : split.train;
      (to_val ? val : test) -= static_cast<int64_t>(rows.size());
      part.insert(part.end(), rows.begin(), rows.end());
    }
  }
  for (auto* part : {&split.train, &split.val, &split.test}) std::sort(part->begin(), part->end());
  return split;
}

void write_split(const std::string& path, const Dataset& data, const Split& split) {
  std::map<int64_t, const char*> rows;
  for (int64_t row : split.train) rows[row] = "train";
  for (int64_t row : split.val) rows[row] = "val";
  for (int64_t row : split.test) rows[row] = "test";
  std::string text = "id_str,row,label,split\n";
  for (auto [row, part] : rows)
    text += csv_cell(data.id(row)) + "," + std::to_string(row) + "," + std::to_string(data.label(row)) + "," +
            part + "\n";
  write_file_atomic(path, text);
}

Split read_split(const std::string& path, const Dataset& data, bool same_labels) {
  CsvTable table(path);
  int id = table.column("id_str"), row_column = table.column("row"), part = table.column("split"),
      label = table.column("label");
  if (id < 0 || row_column < 0 || part < 0)
    fail(path + ": needs the columns id_str, row and split; it has " + table.column_list());
  Split split;
  std::vector<char> seen(data.size(), 0);
  for (int64_t r = 0; r < table.rows(); ++r) {
    int64_t row = -1;
    if (!parse_int(table.cell(r, row_column), row) || row < 0 || row >= data.size())
      fail(table.where(r) + ": row \"" + table.cell(r, row_column) + "\" is not a row of " + data.path());
    if (seen[row]++) fail(table.where(r) + ": row " + std::to_string(row) + " is listed twice");
    if (data.id(row) != table.cell(r, id))
      fail(table.where(r) + ": row " + std::to_string(row) + " of " + data.path() + " is \"" + data.id(row) +
           "\", not \"" + table.cell(r, id) + "\": the data have changed since the split was made");
    // Where rows have no ids but their numbers, only labels tell these data from others.
    const bool numbered = data.id(row) == std::to_string(row) && data.label(row) >= 0;
    if ((same_labels || numbered) && label >= 0 && table.cell(r, label) != std::to_string(data.label(row)))
      fail(table.where(r) + ": row " + std::to_string(row) + " of " + data.path() + " is of class " +
           std::to_string(data.label(row)) + ", not " + table.cell(r, label) +
           ": the data have changed since the split was made");
    const std::string& name = table.cell(r, part);
    if (name != "train" && name != "val" && name != "test")
      fail(table.where(r) + ": split \"" + name + "\" is not train, val or test");
    (name == "train" ? split.train : name == "val" ? split.val : split.test).push_back(row);
  }
  for (auto* rows : {&split.train, &split.val, &split.test}) std::sort(rows->begin(), rows->end());
  return split;
}

}  // namespace gm
