// The report of a search: what it found, with intervals, and two pictures.
#pragma once
#include <string>
#include <vector>

#include "tools/search/finalists.h"

namespace gm {

/// Finalists and their results from scratch, in the same order; `best` of the found ones, 0 when none was
/// found.
struct SearchOutcome {
  std::vector<Finalist> finalists;
  std::vector<CandidateResult> results;
  size_t best = 0;
};

/// One line a finalist and the verdict: is the best found network at least as accurate as the base at no more
/// MACs?
std::vector<std::string> outcome_lines(const SearchOutcome& outcome);

/// FOLDER/report.md, reward.svg (reward by iteration, sampler against sampler) and front.svg (accuracy
/// against MACs: networks scored with shared weights, and those trained from scratch).
void write_search_report(const SearchConfig& config, const Journal& journal, const SearchOutcome& outcome,
                         const std::string& folder);

}  // namespace gm
