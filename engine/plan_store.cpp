#include "engine/plan_store.h"

#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "engine/atomic_file.h"
#include "engine/folder_lock.h"
#include "kernels/common/error.h"

namespace gm {

namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

// "NVIDIA H100 PCIe, sm_90, cuDNN 9.19.0" -> "NVIDIA-H100-PCIe-sm_90-cuDNN-9.19.0"
std::string file_name(const std::string& origin) {
  std::string name;
  for (char c : origin)
    if (std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_')
      name += c;
    else if (!name.empty() && name.back() != '-')
      name += '-';
  return name;
}

}  // namespace

std::string plan_cache_folder() {
  if (const std::string wish = variable("GM_PLAN_CACHE"); !wish.empty()) return wish == "off" ? "" : wish;
  if (const std::string cache = variable("XDG_CACHE_HOME"); !cache.empty())
    return cache + "/galaxy_morphology";
  const std::string home = variable("HOME");
  return home.empty() ? "" : home + "/.cache/galaxy_morphology";
}

PlanStore::PlanStore(std::string folder, std::string origin)
    : folder_(std::move(folder)),
      origin_(std::move(origin)),
      path_(folder_ + "/" + file_name(origin_) + ".txt") {}

PlanChoices PlanStore::load(bool report) const {
  std::error_code error;
  if (!std::filesystem::exists(path_, error)) return {};
  try {
    return PlanChoices::parse(read_file(path_), origin_);
  } catch (const Error& e) {
    if (report) std::fprintf(stderr, "%s: %s; plans are timed anew\n", path_.c_str(), e.what());
    return {};
  }
}

void PlanStore::write(PlanChoices& choices) {
  choices.saved();
  if (failed_) return;
  try {
    std::error_code error;
    std::filesystem::create_directories(folder_, error);
    const FolderLock lock(folder_, true);  // so that no process loses what another one found
    PlanChoices all = choices;
    const size_t overruled = all.add_earlier(load(false));
    if (overruled > overruled_)
      std::fprintf(
          stderr,
          "%s: another process chose %zu plans differently at the same time, and its choice is kept; "
          "this run, if it is resumed, goes on with other last digits\n",
          path_.c_str(), overruled);
    overruled_ = overruled;
    write_file_atomic(path_, all.text(origin_));
  } catch (const Error& e) {
    failed_ = true;
    std::fprintf(stderr, "%s; the next run times plans anew\n", e.what());
  }
}

}  // namespace gm
