// The configuration of gm_search: that of gm_train and a section `search`.
#pragma once
#include <string>
#include <vector>

#include "layers/search_space.h"
#include "tools/run_config.h"

namespace gm {

struct SearchConfig {
  std::string path;
  YAML::Node training;  // the file without `search`: what gm_train reads
  RunConfig run;        // the same, checked; its architecture is the base of the space
  SpaceOptions space;
};

/// Reads and checks every key. Throws gm::Error naming file and line.
SearchConfig read_search_config(const std::string& path, const std::vector<std::string>& sets);

/// A configuration that gm_train takes as it is: `training` with another network in it. `comment`: its first
/// line.
std::string network_config(const YAML::Node& training, Architecture network, const std::string& name,
                           const std::string& comment);

/// "0,1,2": throws gm::Error when something else than whole numbers stands there.
ChoiceVector parse_choices(const std::string& text);
std::string choices_text(const ChoiceVector& choices);

}  // namespace gm
