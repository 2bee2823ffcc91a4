// The file that keeps which plans of cuDNN and cuBLASLt proved fastest on a device, so that the next process
// takes them untimed.
#pragma once
#include <string>

#include "kernels/common/plan_choice.h"

namespace gm {

/// Where such files lie: GM_PLAN_CACHE, else galaxy_morphology in XDG_CACHE_HOME, else in HOME/.cache. Empty
/// when GM_PLAN_CACHE is "off", which also means that nothing is timed, and where none of them is set.
std::string plan_cache_folder();

class PlanStore {
 public:
  /// origin: the device and the library versions in one line; a file holds for that line only.
  PlanStore(std::string folder, std::string origin);
  const std::string& path() const { return path_; }

  /// Nothing when there is no file. One that cannot be used is reported in one line on standard error and
  /// treated as if it were not there.
  PlanChoices read() const { return load(true); }
  /// Makes `choices`, after those that other processes have written since, the content of the file. Failing
  /// is reported in one line, once: a run does not end because a folder is read-only. So is a choice that one
  /// of theirs overrules.
  void write(PlanChoices& choices);

 private:
  PlanChoices load(bool report) const;

  std::string folder_, origin_, path_;
  bool failed_ = false;
  size_t overruled_ = 0;  // choices, as reported
};

}  // namespace gm
