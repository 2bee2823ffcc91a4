#include "layers/config.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include "engine/atomic_file.h"
#include "kernels/common/error.h"

namespace gm {

namespace {

size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = above;
    }
  }
  return row[b.size()];
}

// Neither .nan nor .inf.
bool read_number(const YAML::Node& n, double& v) {
  return n.IsScalar() && YAML::convert<double>::decode(n, v) && std::isfinite(v);
}

}  // namespace

std::string nearest(const std::string& word, const std::set<std::string>& candidates) {
  std::string best;
  size_t best_distance = std::max<size_t>(2, word.size() / 2) + 1;
  for (const auto& c : candidates)
    if (const size_t distance = edit_distance(word, c); distance < best_distance)
      best_distance = distance, best = c;
  return best;
}

std::vector<std::string> by_nearness(const std::string& word, std::vector<std::string> candidates) {
  auto key = [&](const std::string& c) {
    return std::pair(c.find(word) == std::string::npos, edit_distance(word, c));
  };
  std::stable_sort(candidates.begin(), candidates.end(),
                   [&](const auto& a, const auto& b) { return key(a) < key(b); });
  return candidates;
}

namespace {
/// Behind a file's name; values that come from --set have no line.
std::string line_text(const YAML::Mark& mark) {
  return mark.line >= 0 ? ":" + std::to_string(mark.line + 1) : " (--set)";
}
}  // namespace

Section::Section(YAML::Node node, std::string path, std::string file)
    : node_(std::move(node)), path_(std::move(path)), file_(std::move(file)) {
  if (node_ && !node_.IsNull() && !node_.IsMap())
    fail(file_ + line_text(node_.Mark()) + ": " + path_ + " must be a mapping (key: value)");
}

YAML::Node Section::find(const std::string& key) {
  known_.insert(key);
  if (!node_ || !node_.IsMap()) return YAML::Node(YAML::NodeType::Undefined);
  return node_[key];
}

void Section::error(const std::string& key, const std::string& what) const {
  // The mark of the key, not of its value: a section's value begins on the next line.
  std::string where = file_;
  bool found = false;
  if (node_ && node_.IsMap())
    for (const auto& item : node_) {
      if (item.first.Scalar() != key) continue;
      found = true;
      where += line_text(item.first.Mark());
    }
  if (!found && node_ && node_.Mark().line >= 0) where += ":" + std::to_string(node_.Mark().line + 1);
  fail(where + ": " + (path_.empty() ? "" : path_ + ".") + key + ": " + what);
}

void Section::missing(const std::string& key) const {
  if (node_ && node_.IsMap())
    for (const auto& item : node_) {
      const std::string other = item.first.Scalar();
      if (!known_.count(other) && !nearest(other, {key}).empty())
        error(other, "unknown key; did you mean '" + key + "'?");
    }
  error(key, "is required");
}

bool Section::has(const std::string& key) {
  const YAML::Node n = find(key);
  return n && !n.IsNull();
}

double Section::number(const std::string& key, double fallback, double lo, double hi) {
  const YAML::Node n = find(key);
  if (!n || n.IsNull()) return fallback;
  double v = 0;
  if (!read_number(n, v)) error(key, "must be a number");
  if (v < lo || v > hi) {
    auto text = [](double x) {  // the shortest that reads back as x, large whole numbers in full
      char s[32];
      const bool whole = x == std::floor(x) && std::abs(x) < 1e17;
      const auto end = whole ? std::to_chars(s, s + sizeof s, x, std::chars_format::fixed).ptr
                             : std::to_chars(s, s + sizeof s, x).ptr;
      return std::string(s, end);
    };
    error(key, n.Scalar() + " is out of range [" + text(lo) + ", " + text(hi) + "]");
  }
  return v;
}

int64_t Section::integer(const std::string& key, int64_t fallback, int64_t lo, int64_t hi) {
  const double v =
      number(key, static_cast<double>(fallback), static_cast<double>(lo), static_cast<double>(hi));
  if (v != std::floor(v)) error(key, "must be a whole number");
  return static_cast<int64_t>(v);
}

bool Section::flag(const std::string& key, bool fallback) {
  const YAML::Node n = find(key);
  if (!n || n.IsNull()) return fallback;
  bool v = false;
  if (!n.IsScalar() || !YAML::convert<bool>::decode(n, v)) error(key, "must be true or false");
  return v;
}

std::string Section::text(const std::string& key, const std::string& fallback,
                          const std::vector<std::string>& choices) {
  const YAML::Node n = find(key);
  if (!n || n.IsNull()) return fallback;
  if (!n.IsScalar()) error(key, "must be text");
  const std::string v = n.Scalar();
  if (!choices.empty() && std::find(choices.begin(), choices.end(), v) == choices.end()) {
    std::string all;
    for (const auto& c : choices) all += (all.empty() ? "" : ", ") + c;
    error(key, "'" + v + "' is not one of " + all);
  }
  return v;
}

std::vector<double> Section::numbers(const std::string& key, const std::vector<double>& fallback,
                                     size_t count) {
  const YAML::Node n = find(key);
  if (!n || n.IsNull()) return fallback;
  std::vector<double> v;
  double x = 0;
  if (read_number(n, x)) v.assign(count, x);
  if (n.IsSequence())
    for (const auto& item : n) {
      if (!read_number(item, x)) error(key, "must be a list of numbers");
      v.push_back(x);
    }
  if (count == 0 && !n.IsSequence()) error(key, "must be a list of numbers");
  if (count > 0 && v.size() != count) error(key, "must be one number or a list of " + std::to_string(count));
  return v;
}

std::vector<std::string> Section::texts(const std::string& key) {
  const YAML::Node n = find(key);
  std::vector<std::string> v;
  if (!n || n.IsNull()) return v;
  if (!n.IsSequence()) error(key, "must be a list");
  for (const auto& item : n) {
    if (!item.IsScalar()) error(key, "must be a list of texts");
    v.push_back(item.Scalar());
  }
  return v;
}

Section Section::section(const std::string& key) {
  const YAML::Node n = find(key);
  const std::string path = path_.empty() ? key : path_ + "." + key;
  return Section(n && !n.IsNull() ? n : YAML::Node(YAML::NodeType::Map), path, file_);
}

std::vector<Section> Section::list(const std::string& key) {
  const YAML::Node n = find(key);
  std::vector<Section> v;
  if (!n || n.IsNull()) return v;
  if (!n.IsSequence()) error(key, "must be a list");
  for (size_t i = 0; i < n.size(); ++i)
    v.emplace_back(n[i], (path_.empty() ? key : path_ + "." + key) + "[" + std::to_string(i) + "]", file_);
  return v;
}

std::vector<std::string> Section::keys() const {
  std::vector<std::string> v;
  if (node_ && node_.IsMap())
    for (const auto& item : node_) v.push_back(item.first.Scalar());
  return v;
}

void Section::finish() const {
  if (!node_ || !node_.IsMap()) return;
  for (const auto& item : node_) {
    const std::string key = item.first.Scalar();
    if (known_.count(key)) continue;
    const std::string near = nearest(key, known_);
    error(key, "unknown key" + (near.empty() ? std::string() : "; did you mean '" + near + "'?"));
  }
}

YAML::Node parse_yaml(const std::string& text, const std::string& where) {
  try {
    return YAML::Load(text);
  } catch (const YAML::Exception& e) {
    fail(where + ":" + std::to_string(e.mark.line + 1) + ": not valid YAML: " + e.msg);
  }
}

namespace {

// `over` wins; mappings are merged key by key. A key without a value, such as a section whose lines are all
// commented out, is not given. Nodes are taken over, not cloned: clones forget their lines.
YAML::Node merged(const YAML::Node& base, const YAML::Node& over) {
  if (over.IsNull()) return base;
  if (!base.IsMap() || !over.IsMap()) return over;
  YAML::Node result(YAML::NodeType::Map);
  for (const auto& item : base) {
    const YAML::Node stronger = over[item.first.Scalar()];
    result.force_insert(item.first, stronger ? merged(item.second, stronger) : item.second);
  }
  for (const auto& item : over)
    if (!base[item.first.Scalar()]) result.force_insert(item.first, item.second);
  return result;
}

// The library takes the first of two.
void check_keys(const YAML::Node& node, const std::string& path, int depth = 0) {
  if (depth > 100) fail(path + ": nested too deep; does an alias hold itself?");
  if (node.IsSequence())
    for (const auto& item : node) check_keys(item, path, depth + 1);
  if (!node.IsMap()) return;
  std::set<std::string> seen;
  for (const auto& item : node) {
    if (item.first.IsScalar() && !seen.insert(item.first.Scalar()).second)
      fail(path + ":" + std::to_string(item.first.Mark().line + 1) + ": '" + item.first.Scalar() +
           "' is given twice");
    check_keys(item.second, path, depth + 1);
  }
}

// The lines of a --set are none of the file's. Nodes that are not read have none, those of a clone the first.
YAML::Node without_lines(const YAML::Node& node) {
  if (node.IsNull()) return YAML::Node(YAML::NodeType::Null);
  YAML::Node copy(node.Type());
  if (node.IsScalar()) copy = node.Scalar();
  if (node.IsSequence())
    for (const auto& item : node) copy.push_back(without_lines(item));
  if (node.IsMap())
    for (const auto& item : node) copy.force_insert(without_lines(item.first), without_lines(item.second));
  copy.SetTag(node.Tag());
  copy.SetStyle(node.Style());
  return copy;
}

void apply_set(YAML::Node root, const std::string& assignment) {
  const size_t eq = assignment.find('=');
  if (eq == std::string::npos || eq == 0)
    fail("--set " + assignment + ": write key=value, e.g. input.size=64");
  if (eq + 1 == assignment.size()) fail("--set " + assignment + ": has no value");
  const YAML::Node value = parse_yaml(assignment.substr(eq + 1), "--set " + assignment);
  check_keys(value, "--set " + assignment);
  set_key(root, assignment.substr(0, eq), without_lines(value), "--set " + assignment);
}

}  // namespace

void set_key(YAML::Node root, const std::string& key, const YAML::Node& value, const std::string& where) {
  std::string path = key;
  YAML::Node at = root;
  for (size_t dot; (dot = path.find('.')) != std::string::npos; path = path.substr(dot + 1)) {
    const std::string section = path.substr(0, dot);
    if (!at[section] || at[section].IsNull()) at[section] = YAML::Node(YAML::NodeType::Map);
    if (!at[section].IsMap()) fail(where + ": '" + section + "' is not a section");
    YAML::Node next = at[section];
    at.reset(next);
  }
  at.remove(path);  // so that messages about the new value do not name the line of the old one
  at[path] = value;
}

YAML::Node load_config(const std::string& path, const std::vector<std::string>& sets) {
  YAML::Node root = parse_yaml(read_file(path), path);
  if (!root.IsMap()) fail(path + ": not a model configuration (expected keys model, input, ...)");
  check_keys(root, path);
  if (root["recipe"] && !root["recipe"].IsScalar())
    fail(path + ":" + std::to_string(root["recipe"].Mark().line + 1) + ": recipe must be one name");
  const std::string own = root["recipe"] ? root["recipe"].Scalar() : "";
  for (const auto& s : sets)  // --set recipe=... must choose before the presets are merged
    if (s == "recipe=")
      fail("--set recipe=: has no value");
    else if (s.rfind("recipe=", 0) == 0)
      root["recipe"] = s.substr(7);
  const std::string recipe = root["recipe"] ? root["recipe"].Scalar() : "";
  if (root["recipes"]) {
    const YAML::Node presets = root["recipes"];
    if (!presets.IsMap())
      fail(path + ":" + std::to_string(presets.Mark().line + 1) + ": recipes must be a mapping");
    if (!recipe.empty() && !presets[recipe]) {
      std::string names;
      for (const auto& item : presets) names += (names.empty() ? "" : ", ") + item.first.Scalar();
      fail(path + ": recipe '" + recipe + "' is not one of " + names);
    }
    const YAML::Node chosen = recipe.empty() ? YAML::Node(YAML::NodeType::Map) : presets[recipe];
    if (!chosen.IsMap())
      fail(path + ":" + std::to_string(chosen.Mark().line + 1) + ": recipe '" + recipe +
           "' must be a mapping");
    root.remove("recipes");
    root = merged(chosen, root);
  } else if (recipe != own) {
    fail(path + ": has no recipes; '" + recipe + "' cannot be chosen from it");
  } else if (!recipe.empty() && !root["optimizer"] && !root["train"]) {
    fail(path + ": names the recipe '" + recipe + "' and has no recipes");
  }
  for (const auto& s : sets)
    if (s.rfind("recipe=", 0) != 0) apply_set(root, s);
  return root;
}

std::string yaml_text(const YAML::Node& node) {
  YAML::Emitter text;
  text << node;
  return text.c_str();
}

std::string config_text(const YAML::Node& config) { return yaml_text(config) + "\n"; }

}  // namespace gm
