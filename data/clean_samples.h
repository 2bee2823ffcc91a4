// The clean samples of the second paper (S2, Table 1) from the labels of the Galaxy Zoo challenge.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace gm {

/// training_solutions_rev1.csv: a row for each galaxy with 37 vote fractions. They are cumulative: a
/// fraction is the share of all volunteers who came to that answer, so the answers of question 7 (how
/// round?) add up to the fraction of Class1.1 (smooth).
struct CleanRules {
  /// False: the thresholds are compared with the values as they stand, which gives the paper's counts. True:
  /// each question's values are first divided by their parent answer, as "vote fraction of a question" is
  /// usually read.
  bool conditional = false;
};

struct CleanGalaxy {
  std::string id;
  int label;  ///< index into gz5_classes()
};

struct CleanSamples {
  std::vector<CleanGalaxy> galaxies;   ///< in the order of the file; every one is in exactly one class
  std::array<int64_t, 5> counts{};     ///< galaxies that fulfil each class's rules
  int64_t rows = 0;                    ///< of the file
  int64_t ambiguous = 0;               ///< in more than one class (conditional only): counted, not listed
  double largest_sum_error = 0;        ///< of the checked questions
  int64_t off = 0;                     ///< galaxies with answers that are not their parent's sum within 0.01
  std::string first_off;               ///< the first of them, in words: file, line, galaxy, question, sums
  std::vector<std::string> unchecked;  ///< questions whose sum could not be checked: columns are missing
};

/// Number of galaxies per class that Table 1 of S2 prints; 28,793 in all.
inline constexpr std::array<int64_t, 5> kPaperCleanCounts = {8436, 8069, 579, 3903, 7806};

/// Reads and selects. Throws gm::Error naming file and line: a column that a rule needs is missing (those of
/// question 1 it needs for the conditional reading only), an id that is empty or stands twice, a value that
/// is no number in 0..1. Values count as they stand even where they do not add up.
CleanSamples select_clean_samples(const std::string& csv, const CleanRules& rules);

}  // namespace gm
