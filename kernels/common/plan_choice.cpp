#include "kernels/common/plan_choice.h"

#include <algorithm>
#include <cmath>
#include <sstream>

#include "kernels/common/error.h"

namespace gm {

namespace {
const char kTitle[] = "galaxy morphology: plans 1";
const char kArrow[] = " -> ";
}  // namespace

const std::string* PlanChoices::find(const std::string& problem) const {
  if (const auto it = chosen_.find(problem); it != chosen_.end()) return &it->second;
  const auto it = for_now_.find(problem);
  return it == for_now_.end() ? nullptr : &it->second;
}
void PlanChoices::choose(const std::string& problem, const std::string& candidate) {
  for (const std::string& text : {problem, candidate})
    if (text.empty() || text.find(kArrow) != text.npos || text.find('\n') != text.npos)
      fail("a plan's name may not be '" + text + "'");
  chosen_[problem] = candidate;
  unsaved_ = true;
}
void PlanChoices::forget(const std::string& problem) {
  if (const auto it = chosen_.find(problem); it != chosen_.end()) {
    forgotten_[problem] = it->second;
    chosen_.erase(it);
  }
}

size_t PlanChoices::add_earlier(const PlanChoices& earlier) {
  size_t overruled = 0;
  for (const auto& [problem, candidate] : earlier.chosen_) {
    const auto refused = forgotten_.find(problem);
    if (refused != forgotten_.end() && refused->second == candidate) continue;
    std::string& chosen = chosen_[problem];
    overruled += !chosen.empty() && chosen != candidate;
    chosen = candidate;
  }
  return overruled;
}

std::string PlanChoices::text(const std::string& origin) const {
  std::string text = std::string(kTitle) + "\n" + origin + "\n";
  for (const auto& [problem, candidate] : chosen_) text += problem + kArrow + candidate + "\n";
  return text + "end " + std::to_string(chosen_.size()) + "\n";
}

PlanChoices PlanChoices::parse(const std::string& text, const std::string& origin) {
  std::istringstream lines(text);
  std::string line;
  if (!std::getline(lines, line) || line != kTitle) fail("not a file of plans");
  if (!std::getline(lines, line) || line != origin) fail("plans of '" + line + "', not of '" + origin + "'");
  PlanChoices read;
  for (int number = 3; std::getline(lines, line); ++number) {
    if (line == "end " + std::to_string(read.size())) return read;
    const size_t arrow = line.find(kArrow);
    if (arrow == std::string::npos || arrow == 0 || arrow + sizeof kArrow - 1 == line.size())
      fail("line " + std::to_string(number) + " names no plan");
    read.chosen_[line.substr(0, arrow)] = line.substr(arrow + sizeof kArrow - 1);
  }
  fail("it breaks off");
}

size_t fastest_candidate(const std::vector<double>& seconds) {
  if (seconds.empty()) return kNoCandidate;
  const double best = *std::min_element(seconds.begin(), seconds.end());
  if (!std::isfinite(best)) return kNoCandidate;
  size_t i = 0;
  while (seconds[i] > 1.02 * best) ++i;
  return i;
}

}  // namespace gm
