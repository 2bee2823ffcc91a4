// Strict reading of YAML: every key must be known, of the right type and in range; errors are one line with
// the file, the line and the nearest valid key.
#pragma once
#include <yaml-cpp/yaml.h>

#include <initializer_list>
#include <set>
#include <string>
#include <vector>

namespace gm {

/// One mapping of a YAML file. Getters take a default; a key that no getter asked for is an error in
/// finish().
class Section {
 public:
  Section(YAML::Node node, std::string path, std::string file);

  bool has(const std::string& key);
  /// Keys that somebody else reads.
  void allow(std::initializer_list<const char*> keys) { known_.insert(keys.begin(), keys.end()); }
  double number(const std::string& key, double fallback, double lo, double hi);
  int64_t integer(const std::string& key, int64_t fallback, int64_t lo, int64_t hi);
  bool flag(const std::string& key, bool fallback);
  /// choices empty: any text.
  std::string text(const std::string& key, const std::string& fallback,
                   const std::vector<std::string>& choices = {});
  /// One number or a list of exactly `count` numbers; count 0: a list of any length.
  std::vector<double> numbers(const std::string& key, const std::vector<double>& fallback, size_t count);
  std::vector<std::string> texts(const std::string& key);
  /// An absent mapping reads as empty.
  Section section(const std::string& key);
  std::vector<Section> list(const std::string& key);
  /// Every key there is, in the order of the file: for mappings whose keys are names.
  std::vector<std::string> keys() const;
  /// Throws gm::Error for keys that nothing asked for.
  void finish() const;
  /// Throws gm::Error for a required key that is absent, or for the misspelt one in its place.
  [[noreturn]] void missing(const std::string& key) const;
  /// Throws gm::Error at the line of `key`.
  [[noreturn]] void error(const std::string& key, const std::string& what) const;

 private:
  YAML::Node find(const std::string& key);
  YAML::Node node_;
  std::string path_, file_;
  std::set<std::string> known_;
};

/// Reads a file, picks the preset named by `recipe` out of `recipes`, lets the file's own sections override
/// it and applies `--set key=value` (dotted paths) last. The result holds the sections without `recipes`: one
/// file that repeats the run. Throws gm::Error for unreadable or malformed files.
YAML::Node load_config(const std::string& path, const std::vector<std::string>& sets = {});

/// Sets one key, given by its dotted path; `where` says in errors who asked for it.
void set_key(YAML::Node root, const std::string& key, const YAML::Node& value, const std::string& where);

/// The text of a node, without a line break at its end; parse_yaml reads it again.
std::string yaml_text(const YAML::Node& node);

/// The text of a configuration that load_config reads again; ends with a line break.
std::string config_text(const YAML::Node& config);

/// Parses YAML text (a model description stored in a weight file).
YAML::Node parse_yaml(const std::string& text, const std::string& where);

/// The candidate closest to `word` by edit distance, or "" when none is near.
std::string nearest(const std::string& word, const std::set<std::string>& candidates);

/// All candidates, nearest first: those that contain `word`, then by edit distance; ties keep their order.
std::vector<std::string> by_nearness(const std::string& word, std::vector<std::string> candidates);

}  // namespace gm
