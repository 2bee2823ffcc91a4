#include "data/split.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numbers>
#include <numeric>
#include <tuple>
#include <unordered_map>

#include "data/csv.h"
#include "engine/atomic_file.h"
#include "kernels/common/error.h"
#include "kernels/common/shuffle.h"

namespace gm {
namespace {

int64_t find_root(std::vector<int64_t>& parent, int64_t i) {
  while (parent[i] != i) i = parent[i] = parent[parent[i]];
  return i;
}

using Vector = std::array<double, 3>;
using Cell = std::array<int64_t, 3>;

struct CellHash {
  size_t operator()(const Cell& c) const {
    return static_cast<size_t>((static_cast<uint64_t>(c[0]) * 0x9E3779B97F4A7C15u) ^
                               (static_cast<uint64_t>(c[1]) * 0xC2B2AE3D27D4EB4Fu) ^
                               (static_cast<uint64_t>(c[2]) * 0x165667B19E3779F9u));
  }
};

/// The positions in a cube whose side is half the radius: nearer to each other than that, so one object.
struct Crowd {
  Cell cube;
  int64_t row;  // any of theirs
  std::vector<Vector> positions;
};

}  // namespace

std::vector<int64_t> sky_groups(const Dataset& data, double arcsec) {
  std::vector<int64_t> parent(data.size());
  std::iota(parent.begin(), parent.end(), 0);
  struct Place {
    double ra, dec;
    int64_t row;
  };
  std::vector<Place> places;
  for (int64_t row = 0; arcsec > 0 && row < data.size(); ++row)
    if (Place p{0, 0, row}; data.sky(row, p.ra, p.dec)) places.push_back(p);
  std::sort(places.begin(), places.end(),
            [](const Place& a, const Place& b) { return std::tie(a.ra, a.dec) < std::tie(b.ra, b.dec); });
  // Unit vectors have no seam at 0h and no poles; within an arcsecond, chord = angle.
  const double degree = std::numbers::pi / 180, chord = arcsec / 3600 * degree;
  // Cells of 16^3 cubes: whoever is within the radius lies two cubes away at most, mostly in the same cell.
  constexpr int kShift = 4, kReach = 2;
  std::unordered_map<Cell, std::vector<Crowd>, CellHash> cells;
  for (size_t i = 0; i < places.size(); ++i) {
    const auto [ra, dec, row] = places[i];
    if (i > 0 && ra == places[i - 1].ra && dec == places[i - 1].dec) {
      parent[find_root(parent, row)] = find_root(parent, places[i - 1].row);
      continue;
    }
    const Vector p = {std::cos(dec * degree) * std::cos(ra * degree),
                      std::cos(dec * degree) * std::sin(ra * degree), std::sin(dec * degree)};
    Cell cube, cell, first, last;
    for (int k = 0; k < 3; ++k) {
      cube[k] = static_cast<int64_t>(std::floor(p[k] / (chord / 2)));
      cell[k] = cube[k] >> kShift;
      first[k] = (cube[k] - kReach) >> kShift;
      last[k] = (cube[k] + kReach) >> kShift;
    }
    auto& crowds = cells[cell];
    auto mine = std::find_if(crowds.begin(), crowds.end(), [&](const Crowd& c) { return c.cube == cube; });
    if (mine == crowds.end()) mine = crowds.insert(mine, {cube, row, {}});
    mine->positions.push_back(p);
    parent[find_root(parent, row)] = find_root(parent, mine->row);
    auto near_row = [&](const Vector& q) {
      return std::hypot(p[0] - q[0], p[1] - q[1], p[2] - q[2]) <= chord;
    };
    auto reached = [&](const Cell& other) {
      for (int k = 0; k < 3; ++k)
        if (std::abs(other[k] - cube[k]) > kReach) return false;
      return true;
    };
    auto join = [&](const std::vector<Crowd>& with) {
      for (const Crowd& crowd : with)
        if (reached(crowd.cube))
          if (const int64_t a = find_root(parent, row), b = find_root(parent, crowd.row);
              a != b && std::any_of(crowd.positions.begin(), crowd.positions.end(), near_row))
            parent[a] = b;
    };
    for (Cell at = first; at[0] <= last[0]; ++at[0])
      for (at[1] = first[1]; at[1] <= last[1]; ++at[1])
        for (at[2] = first[2]; at[2] <= last[2]; ++at[2])
          if (const auto near = cells.find(at); near != cells.end()) join(near->second);
  }
  std::vector<int64_t> group(data.size()), number(data.size(), -1);
  int64_t next = 0;
  for (int64_t row = 0; row < data.size(); ++row) {
    int64_t& of_root = number[find_root(parent, row)];
    if (of_root < 0) of_root = next++;
    group[row] = of_root;
  }
  return group;
}

std::map<int, std::vector<std::vector<int64_t>>> shuffled_objects(const Dataset& data, uint64_t seed,
                                                                  double same_sky_arcsec) {
  const std::vector<int64_t> group = sky_groups(data, same_sky_arcsec);
  std::vector<std::vector<int64_t>> members(group.size());
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
    shuffle(groups, rng);
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
    const int64_t val_target = target(config.val), test_target = target(config.test);
    int64_t val = val_target, test = test_target;
    std::vector<const std::vector<int64_t>*> kept;  // for training
    auto put = [](const std::vector<int64_t>& rows, std::vector<int64_t>& part, int64_t& wanted) {
      wanted -= static_cast<int64_t>(rows.size());
      part.insert(part.end(), rows.begin(), rows.end());
    };
    for (size_t i = 0; i < of_class.size(); ++i) {
      const auto& rows = of_class[i];
      const size_t left = of_class.size() - i;
      const bool last = left == 1;  // kept for training, so that no class is only in validation
      const bool to_val = val > 0 && (left > 2 || test <= 0);
      int64_t& wanted = to_val ? val : test;
      const int64_t excess = static_cast<int64_t>(rows.size()) - wanted;
      const bool fits = excess <= std::max<int64_t>(2, (to_val ? val_target : test_target) / 10);
      if (!last && wanted > 0 && fits)
        put(rows, to_val ? split.val : split.test, wanted);
      else
        kept.push_back(&rows);
    }
    // A part for which every object was too large gets the smallest that training can spare.
    auto fill = [&](std::vector<int64_t>& part, int64_t& wanted, int64_t all) {
      if (all <= 0 || wanted < all || kept.size() < 2) return;
      const auto smallest = std::min_element(
          kept.begin(), kept.end(), [](const auto* a, const auto* b) { return a->size() < b->size(); });
      put(**smallest, part, wanted);
      kept.erase(smallest);
    };
    if (objects > 2 || test_target <= 0) fill(split.val, val, val_target);
    fill(split.test, test, test_target);
    for (const auto* rows : kept) split.train.insert(split.train.end(), rows->begin(), rows->end());
  }
  for (auto* part : {&split.train, &split.val, &split.test}) std::sort(part->begin(), part->end());
  return split;
}

void write_split(const std::string& path, const Dataset& data, const Split& split) {
  std::vector<const char*> parts(data.size(), nullptr);
  for (int64_t row : split.train) parts[row] = "train";
  for (int64_t row : split.val) parts[row] = "val";
  for (int64_t row : split.test) parts[row] = "test";
  std::string text = "id_str,row,label,split\n";
  for (int64_t row = 0; row < data.size(); ++row)
    if (parts[row])
      text += csv_cell(data.id(row)) + "," + std::to_string(row) + "," + std::to_string(data.label(row)) +
              "," + parts[row] + "\n";
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
