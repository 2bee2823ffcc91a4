#include "layers/conventions.h"

#include "kernels/common/error.h"

namespace gm {

namespace {
/// Section and key of each in a configuration.
constexpr const char* kKeys[][2] = {{"model", "padding"}, {"model", "batch_norm"}, {"input", "scaling"}};
}  // namespace

std::string stored_conventions(const Architecture& a) {
  const YAML::Node all = parse_yaml(architecture_yaml(a), "architecture");
  YAML::Node root;
  for (const auto& [section, key] : kKeys) root[section][key] = all[section][key];
  if (!a.class_names.empty()) root["model"]["class_names"] = a.class_names;
  return yaml_text(root);
}

std::vector<std::string> take_conventions(Architecture& a, const std::string& stored,
                                          const std::string& path) {
  const std::string where = path + " (" + kConventions + ")";
  const YAML::Node root = parse_yaml(stored, where);
  // The rest of the network around them: read_architecture checks types and ranges.
  Architecture rest = a;
  rest.class_names.clear();
  YAML::Node all = parse_yaml(architecture_yaml(rest), where);
  for (const auto& [section, key] : kKeys) {
    if (!root.IsMap() || !root[section].IsMap() || !root[section][key])
      fail(where + ": " + section + "." + key + " is missing");
    all[section][key] = root[section][key];
  }
  const Architecture read = read_architecture(all, where);
  a.same_padding = read.same_padding;
  a.bn_epsilon = read.bn_epsilon, a.bn_momentum = read.bn_momentum, a.bn_unbiased = read.bn_unbiased;
  a.mean = read.mean, a.std = read.std;
  YAML::Node names;
  if (root["model"]["class_names"]) names["class_names"] = root["model"]["class_names"];
  return Section(names, "model", where).texts("class_names");
}

}  // namespace gm
