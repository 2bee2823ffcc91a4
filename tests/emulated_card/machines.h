// Another machine for the length of a test.
#pragma once
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "tests/emulated_card/faults.h"

namespace gm::test {

/// Variables of the emulated card (README.md), "GM_EMULATED_CARDS=2 GM_EMULATED_MEMORY=16,32", and nothing on
/// the cards; afterwards as before.
class Machine {
 public:
  explicit Machine(const std::string& variables) {
    std::istringstream words(variables);
    for (std::string word; words >> word;) {
      const size_t at = word.find('=');
      names_.push_back(word.substr(0, at));
      setenv(names_.back().c_str(), word.c_str() + at + 1, 1);
    }
    emulated::restart();
  }
  ~Machine() {
    for (const std::string& name : names_) unsetenv(name.c_str());
    emulated::restart();
  }
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

 private:
  std::vector<std::string> names_;
};

}  // namespace gm::test
