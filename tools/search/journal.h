// journal.jsonl: one line of JSON for every network that a search has scored, appended as it comes.
#pragma once
#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "layers/search_space.h"

namespace gm {

struct JournalEntry {
  std::string sampler;
  int64_t iteration = 0, index = 0;  // index: of this sampler's children, 0-based
  ChoiceVector choices;
  std::string network;  // SearchSpace::text
  int64_t macs = 0, parameters = 0;
  double score = 0;    // the metric on validation minibatches, with shared weights
  double reward = 0;   // score (MACs / T)^w
  double seconds = 0;  // building, if it was not built yet, and scoring
};

/// One line without its end. Numbers survive the round trip exactly.
std::string journal_line(const JournalEntry& e);
JournalEntry parse_journal_line(const std::string& line, const std::string& where);

/// A journal on disk. A last line cut short by a kill is dropped when it is opened.
class Journal {
 public:
  /// Throws gm::Error when the file cannot be read or written, or holds a line that is none.
  explicit Journal(const std::string& path);
  const std::vector<JournalEntry>& entries() const { return entries_; }
  /// The entry of a sampler, or null.
  const JournalEntry* find(const std::string& sampler, int64_t index) const;
  void append(const JournalEntry& e);

 private:
  std::string path_;
  std::vector<JournalEntry> entries_;
  std::ofstream file_;
};

}  // namespace gm
