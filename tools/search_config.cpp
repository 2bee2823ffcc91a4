#include "tools/search_config.h"

#include <sstream>

#include "kernels/common/error.h"

namespace gm {

SearchConfig read_search_config(const std::string& path, const std::vector<std::string>& sets) {
  SearchConfig c;
  c.path = path;
  YAML::Node yaml = load_config(path, sets);
  const YAML::Node search = yaml["search"] ? yaml["search"] : YAML::Node(YAML::NodeType::Map);
  yaml.remove("search");
  c.training = yaml;
  c.run = read_run_config(yaml, path);
  Section s(search, "search", path);
  c.space = read_space_options(s.section("space"));
  s.finish();
  return c;
}

std::string network_config(const YAML::Node& training, Architecture network, const std::string& name,
                           const std::string& comment) {
  network.name = name;
  YAML::Node config = YAML::Clone(training);
  const YAML::Node described = parse_yaml(architecture_yaml(network), name);
  config["model"] = described["model"];
  config["input"] = described["input"];
  YAML::Emitter text;
  text << config;
  return "# " + comment + "\n" + text.c_str() + "\n";
}

ChoiceVector parse_choices(const std::string& text) {
  ChoiceVector choices;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');) {
    size_t used = 0;
    int value = -1;
    try {
      value = std::stoi(part, &used);
    } catch (const std::exception&) {
      used = 0;
    }
    if (used == 0 || used != part.size())
      fail("choices: '" + part + "' in '" + text + "' is not a whole number");
    choices.push_back(value);
  }
  return choices;
}

std::string choices_text(const ChoiceVector& choices) {
  std::string text;
  for (int c : choices) text += (text.empty() ? "" : ",") + std::to_string(c);
  return text;
}

}  // namespace gm
