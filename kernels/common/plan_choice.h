// Which of several candidates, kernels of a library or ours, serves a problem best: found once by timing,
// then known by name. Free of CUDA; kernels/common/cuda_timing.h does the timing, engine/plan_store.h keeps
// the file.
#pragma once
#include <cstddef>
#include <map>
#include <string>
#include <vector>

namespace gm {

class PlanChoices {
 public:
  /// Name of the candidate chosen for a problem; null when there is none yet.
  const std::string* find(const std::string& problem) const;
  /// Both are one line of text without " -> ", which stands between them in the file; throws gm::Error else.
  void choose(const std::string& problem, const std::string& candidate);
  /// For want of a timing, until the process ends: the file is not told.
  void choose_for_now(const std::string& problem, const std::string& candidate) {
    for_now_[problem] = candidate;
  }
  /// The library no longer offers the candidate: the problem is open again, and what a file says about it is
  /// overruled by the next choice.
  void forget(const std::string& problem);

  size_t size() const { return chosen_.size(); }
  /// True from the first choose() to saved().
  bool unsaved() const { return unsaved_; }
  void saved() { unsaved_ = false; }

  /// Adds the choices of `earlier`, which win: whoever chose first has fixed the choice. Except those that
  /// were forgotten here. Number of choices that were others here.
  size_t add_earlier(const PlanChoices& earlier);

  /// A file's content. origin: one line naming the device and the libraries that the choices hold for.
  std::string text(const std::string& origin) const;
  /// Throws gm::Error saying what is wrong with the text: another origin, a line that is none, a missing end.
  static PlanChoices parse(const std::string& text, const std::string& origin);

 private:
  std::map<std::string, std::string> chosen_, for_now_, forgotten_;
  bool unsaved_ = false;
};

constexpr size_t kNoCandidate = static_cast<size_t>(-1);
/// Index of the candidate to take by seconds a run, infinite for one that refused: the first within 2 % of
/// the fastest, so that the library's own order decides where the clock can not. kNoCandidate if all refused.
size_t fastest_candidate(const std::vector<double>& seconds);

}  // namespace gm
