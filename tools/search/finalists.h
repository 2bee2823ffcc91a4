// What comes after a search: its best networks trained from scratch, beside the network it started from.
#pragma once
#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "tools/search/candidates.h"
#include "tools/search/config.h"
#include "tools/search/journal.h"

namespace gm {

/// A network that is trained from scratch. The first one of a list is the base of the space.
struct Finalist {
  std::string name, sampler;  // "enas-1", "enas"; "base", ""
  ChoiceVector choices;       // empty when the base is not in its own space
  std::string network;        // SearchSpace::text
  int64_t macs = 0, parameters = 0;
  double score = 0, reward = 0;  // with the final shared weights; 0 for the base
};

/// Score and reward of a network with a sampler's final shared weights.
using Rescore = std::function<std::pair<double, double>(const std::string& sampler, const ChoiceVector&)>;

/// The base, then search.finalists networks of every sampler: of those journalled in the last quarter of the
/// iterations (earlier ones while there are too few) the ones of highest reward when scored anew. Scores in
/// the journal are of different moments of the shared weights and of few images; these are of one and of all
/// whole batches.
/// A network that an earlier sampler has sent is not sent again.
std::vector<Finalist> choose_finalists(const SearchConfig& config, const SearchSpace& space,
                                       const Journal& journal, const Rescore& rescore);

/// FOLDER/finalists.json. Throws gm::Error when it is not one.
void write_finalists(const std::string& folder, const std::vector<Finalist>& finalists);
std::vector<Finalist> read_finalists(const std::string& folder);

/// Trains them in FOLDER/finalists with the configuration's recipe and split and writes, when all have a
/// result, FOLDER/found_<name of the folder>.yaml, which gm_train takes as it is, and report.md, reward.svg,
/// front.svg. Returns lines for the log: the result, or how many networks are still to be trained.
std::vector<std::string> train_finalists(const SearchConfig& config, const SearchSpace& space,
                                         const Journal& journal, const std::string& folder,
                                         CandidateOptions options, const std::atomic<bool>& stop);

}  // namespace gm
