#include "tools/search/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "kernels/common/error.h"

namespace gm {

namespace {

// Chance always runs beside whoever else is asked for: without it a search shows nothing.
std::vector<std::string> read_samplers(Section& s) {
  const std::vector<std::string> known = sampler_names();
  std::vector<std::string> names{"enas", "random"};
  if (!s.has("samplers")) return names;
  names = s.texts("samplers");
  for (size_t i = 0; i < names.size(); ++i) {
    if (std::find(known.begin(), known.end(), names[i]) == known.end())
      s.error("samplers", fmt::format("'{}' is not one of {}", names[i], fmt::join(known, ", ")));
    if (std::find(names.begin(), names.begin() + static_cast<int64_t>(i), names[i]) !=
        names.begin() + static_cast<int64_t>(i))
      s.error("samplers", "'" + names[i] + "' stands there twice");
  }
  if (std::find(names.begin(), names.end(), "random") == names.end()) names.push_back("random");
  return names;
}

RewardConfig read_reward(Section& s) {
  RewardConfig r;
  r.metric = s.text("metric", r.metric, {"accuracy", "macro_f1", "recall"});
  r.class_name = s.text("class", "");
  if ((r.metric == "recall") != !r.class_name.empty())
    s.error(r.class_name.empty() ? "metric" : "class", "metric: recall and class: NAME belong together");
  r.target_macs = s.number("target_macs", r.target_macs, -1e300, 1e300);
  if (!(r.target_macs > 0))
    s.error("target_macs", "must be positive: the reward is ACC (MACs / target_macs)^exponent");
  r.exponent = s.number("exponent", r.exponent, -10, 0);
  return r;
}

ControllerConfig read_controller(Section s) {
  ControllerConfig c;
  c.hidden = static_cast<int>(s.integer("hidden", c.hidden, 1, 4096));
  c.temperature = s.number("temperature", c.temperature, 1e-3, 1000);
  c.tanh_constant = s.number("tanh_constant", c.tanh_constant, 0, 1000);
  c.entropy_weight = s.number("entropy_weight", c.entropy_weight, 0, 1000);
  c.baseline_decay = s.number("baseline_decay", c.baseline_decay, 0, 1);
  c.lr = s.number("lr", c.lr, 0, 10);
  s.finish();
  return c;
}

}  // namespace

double RewardConfig::reward(double score, int64_t macs) const {
  return score * std::pow(static_cast<double>(macs) / target_macs, exponent);
}

SearchConfig read_search_config(const YAML::Node& config, const std::string& path) {
  SearchConfig c;
  c.path = path;
  YAML::Node yaml(YAML::NodeType::Map);  // another mapping of the same nodes: they keep their line numbers
  for (const auto& item : config) yaml.force_insert(item.first, item.second);
  const YAML::Node search = yaml["search"] ? yaml["search"] : YAML::Node(YAML::NodeType::Map);
  yaml.remove("search");
  c.training = yaml;
  c.run = read_run_config(yaml, path);
  Section s(search, "search", path);
  c.space = read_space_options(s.section("space"));
  c.samplers = read_samplers(s);
  c.iterations = s.integer("iterations", c.iterations, 1, 1000000);
  c.train_steps = s.integer("train_steps", c.train_steps, 1, 1000000);
  c.children = s.integer("children", c.children, 1, 100000);
  c.score_batches = s.integer("score_batches", c.score_batches, 1, 1000000);
  c.cache = s.integer("cache", c.cache, 1, 100000);
  c.finalists = s.integer("finalists", c.finalists, 1, 1000);
  c.space.max_macs = s.integer("max_macs", 0, 0, int64_t{1} << 53);
  c.reward = read_reward(s);
  c.controller = read_controller(s.section("controller"));
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
  return "# " + comment + "\n" + config_text(config);
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

std::string choices_text(const ChoiceVector& choices) { return fmt::format("{}", fmt::join(choices, ",")); }

}  // namespace gm
