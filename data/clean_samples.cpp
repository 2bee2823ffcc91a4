#include "data/clean_samples.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "data/csv.h"
#include "kernels/common/error.h"

namespace gm {
namespace {

/// A question of the Galaxy Zoo decision tree: its answers add up to the answer that leads to it.
struct Question {
  int number, answers;
  const char* parent;  // column; "": every volunteer is asked, the sum is 1
};
constexpr Question kQuestions[] = {
    {1, 3, ""},         {2, 2, "Class1.2"},  {3, 2, "Class2.2"},  {4, 2, "Class2.2"},
    {5, 4, "Class2.2"}, {6, 2, ""},          {7, 3, "Class1.1"},  {8, 7, "Class6.1"},
    {9, 3, "Class2.1"}, {10, 3, "Class4.1"}, {11, 6, "Class4.1"},
};
constexpr double kSumTolerance = 0.01;  // the values have six decimals

/// One line of Table 1: every condition must hold. parent: what the conditional reading divides by.
struct Condition {
  const char* column;
  double threshold;
  const char* parent;
};
const std::vector<std::vector<Condition>> kClassRules = {
    {{"Class1.1", 0.469, ""}, {"Class7.1", 0.5, "Class1.1"}},
    {{"Class1.1", 0.469, ""}, {"Class7.2", 0.5, "Class1.1"}},
    {{"Class1.1", 0.469, ""}, {"Class7.3", 0.5, "Class1.1"}},
    {{"Class1.2", 0.430, ""}, {"Class2.1", 0.602, "Class1.2"}},
    {{"Class1.2", 0.469, ""}, {"Class2.2", 0.715, "Class1.2"}, {"Class4.1", 0.619, "Class2.2"}},
};

/// The columns of one file that the tree and the rules name.
class Votes {
 public:
  explicit Votes(const std::string& path) : table_(path), path_(path), id_(need("GalaxyID")) {}
  int64_t rows() const { return table_.rows(); }
  const std::string& id(int64_t row) const { return table_.cell(row, id_); }
  std::string where(int64_t row) const { return table_.where(row); }
  int find(const std::string& column) const { return table_.column(column); }
  int need(const std::string& column) const {
    const int at = find(column);
    if (at < 0)
      fail(fmt::format("{}: has no column {} (is this training_solutions_rev1.csv?)", path_, column));
    return at;
  }
  double value(int64_t row, int column) const {
    double v = 0;
    const std::string& cell = table_.cell(row, column);
    // Written so that NaN fails too.
    if (!parse_double(cell, v) || !(v >= 0 && v <= 1))
      fail(fmt::format("{}: galaxy {}: \"{}\" is not a vote fraction in 0..1", where(row), id(row), cell));
    return v;
  }

 private:
  CsvTable table_;
  std::string path_;
  int id_;
};

/// A question whose columns are all in the file.
struct Sum {
  const Question* question;
  std::vector<int> answers;
  int parent = -1;

  /// Fills in the columns; false when one is missing.
  bool resolve(const Votes& votes) {
    for (int a = 1; a <= question->answers; ++a)
      answers.push_back(votes.find(fmt::format("Class{}.{}", question->number, a)));
    if (*question->parent) answers.push_back(parent = votes.find(question->parent));
    const bool complete = std::find(answers.begin(), answers.end(), -1) == answers.end();
    if (parent >= 0) answers.pop_back();
    return complete;
  }
  double answered(const Votes& votes, int64_t row) const {
    double sum = 0;
    for (int column : answers) sum += votes.value(row, column);
    return sum;
  }
  double asked(const Votes& votes, int64_t row) const { return parent >= 0 ? votes.value(row, parent) : 1; }
  /// How far the answers are from their parent.
  double error(const Votes& votes, int64_t row) const {
    return std::abs(answered(votes, row) - asked(votes, row));
  }
  std::string text(const Votes& votes, int64_t row) const {
    return fmt::format("{}: galaxy {}: the answers of question {} add up to {:.4f}, not to {:.4f}{}",
                       votes.where(row), votes.id(row), question->number, answered(votes, row),
                       asked(votes, row), parent >= 0 ? fmt::format(" ({})", question->parent) : "");
  }
};

/// A condition with its columns found.
struct Test {
  int column, parent;  // parent -1: compare as it stands
  double threshold;
  bool holds(const Votes& votes, int64_t row) const {
    const double v = votes.value(row, column);
    if (parent < 0) return v >= threshold;
    const double of = votes.value(row, parent);
    return of > 0 && v / of >= threshold;
  }
};

std::vector<std::vector<Test>> resolve_rules(const Votes& votes, bool conditional) {
  std::vector<std::vector<Test>> tests;
  for (const auto& conditions : kClassRules) {
    tests.emplace_back();
    for (const Condition& c : conditions) {
      // A parent's own threshold is implied: of cumulative values it is the sum, and those reach higher ones.
      if (!conditional && !*c.parent && votes.find(c.column) < 0) continue;
      tests.back().push_back(
          {votes.need(c.column), conditional && *c.parent ? votes.need(c.parent) : -1, c.threshold});
    }
  }
  return tests;
}

}  // namespace

CleanSamples select_clean_samples(const std::string& csv, const CleanRules& rules) {
  const Votes votes(csv);
  const auto tests = resolve_rules(votes, rules.conditional);
  CleanSamples s;
  s.rows = votes.rows();
  std::vector<Sum> sums;
  for (const Question& q : kQuestions) {
    Sum sum{&q};
    sum.resolve(votes) ? sums.push_back(sum) : s.unchecked.push_back(std::to_string(q.number));
  }
  std::unordered_set<std::string> seen;
  for (int64_t row = 0; row < votes.rows(); ++row) {
    const std::string& id = votes.id(row);
    if (id.empty()) fail(votes.where(row) + ": GalaxyID is empty");
    if (!seen.insert(id).second) fail(votes.where(row) + ": galaxy " + id + " stands in the file twice");
    bool off = false;
    for (const Sum& sum : sums) {
      const double error = sum.error(votes, row);
      s.largest_sum_error = std::max(s.largest_sum_error, error);
      if (error > kSumTolerance && s.first_off.empty()) s.first_off = sum.text(votes, row);
      off |= error > kSumTolerance;
    }
    s.off += off;
    int classes = 0, label = -1;
    for (size_t k = 0; k < tests.size(); ++k) {
      const auto& all = tests[k];
      if (!std::all_of(all.begin(), all.end(), [&](const Test& t) { return t.holds(votes, row); })) continue;
      ++s.counts[k];
      ++classes;
      label = static_cast<int>(k);
    }
    if (classes == 1) s.galaxies.push_back({id, label});
    s.ambiguous += classes > 1;
  }
  return s;
}

}  // namespace gm
