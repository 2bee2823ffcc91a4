#include "kernels/common/cuda_messages.h"

#include <cstdlib>
#include <sstream>

#include "kernels/common/bytes.h"

namespace gm {

namespace {

std::string cuda_version(int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); }

}  // namespace

std::string one_line(const std::string& text) {
  std::string line;
  for (char c : text)
    if (c == '\n' || c == '\r') {
      if (!line.empty() && line.back() != ' ') line += "; ";
    } else {
      line += c;
    }
  while (!line.empty() && (line.back() == ' ' || line.back() == ';')) line.pop_back();
  return line;
}

std::string no_device_text(int status, const std::string& words, int driver, int runtime) {
  switch (status) {
    case cuda_status::success:
    case cuda_status::no_device:
      return "no CUDA device on this machine";
    case cuda_status::stub_library:
      return "no NVIDIA driver on this machine, only the toolkit's stub of libcuda";
    case cuda_status::insufficient_driver:
      if (driver == 0) return "no NVIDIA driver on this machine";
      return "the NVIDIA driver is too old: it serves CUDA " + cuda_version(driver) +
             ", this build needs CUDA " + std::to_string(runtime / 1000) + ".0 or newer";
    case cuda_status::system_driver_mismatch:
      return "the NVIDIA driver's kernel module and library have different versions; reboot after the update";
    case cuda_status::system_not_ready:
      return "the NVIDIA driver is not ready (" + one_line(words) + "); is the fabric manager running?";
    default:
      return one_line(words);
  }
}

std::string cuda_error_text(const std::string& what, int status, const std::string& words) {
  std::string text = what + ": " + one_line(words);
  if (status == cuda_status::memory_allocation) text += "; use a smaller batch";
  if (status == cuda_status::no_kernel_image)
    text += "; build with this card's architecture in GM_CUDA_ARCHS";
  return text;
}

std::string architecture_problem(int index, const std::string& name, int major, int minor,
                                 const std::string& built_for) {
  std::istringstream list(built_for);
  for (std::string entry; std::getline(list, entry, ',');) {
    char* kind = nullptr;
    const long built = std::strtol(entry.c_str(), &kind, 10);
    if (built == 0) return "";  // "native", "all": whatever was meant, the card decides
    const std::string rest = kind;
    const bool code = rest.find("-virtual") == std::string::npos,
               ptx = rest.find("-real") == std::string::npos,
               only = !rest.empty() && rest[0] != '-';  // "90a" serves no other card
    const long card = 10L * major + minor;
    if (card == built || (!only && card > built && (ptx || (code && built / 10 == major)))) return "";
  }
  return "cuda:" + std::to_string(index) + " (" + name + ") has architecture sm_" + std::to_string(major) +
         std::to_string(minor) + "; this build has code for " + built_for + " (GM_CUDA_ARCHS)";
}

std::string out_of_memory_text(size_t asked, size_t free, size_t total) {
  return "out of GPU memory: " + bytes_text(asked) + " asked, " + bytes_text(free) + " of " +
         bytes_text(total) + " free; use a smaller batch";
}

std::string full_card_text(int index, size_t asked, size_t free, size_t total) {
  return "cuda:" + std::to_string(index) + " is too full: the libraries' workspace takes " +
         bytes_text(asked) + ", " + bytes_text(free) + " of " + bytes_text(total) + " are free";
}

std::string version_text(size_t v) {
  return std::to_string(v / 10000) + "." + std::to_string(v / 100 % 100) + "." + std::to_string(v % 100);
}

std::string cudnn_version_problem(size_t version) {
  if (version >= kOldestCudnn) return "";
  // Until version 8 the digits were counted another way: 8904 is 8.9.4.
  const std::string found = version >= 10000
                                ? version_text(version)
                                : std::to_string(version / 1000) + "." + std::to_string(version / 100 % 10) +
                                      "." + std::to_string(version % 100);
  return "cuDNN " + found + " is too old: 9.0 or newer is needed";
}

std::string cudnn_start_text(size_t version, int status, const std::string& words,
                             const std::string& detail) {
  const std::string name = "cuDNN " + version_text(version);
  const std::string said = one_line(words) + (detail.empty() ? "" : " (" + one_line(detail) + ")");
  switch (status) {
    case cudnn_status::version_mismatch:
      return name + " finds parts of another version beside it: " + said;
    case cudnn_status::loading_failed:
    case cudnn_status::sublibrary_unavailable:
      return name + " misses parts of itself: " + said + "; are all libcudnn_*.so.9 on the library path?";
    case cudnn_status::incompatible_driver:
      return name + " needs a newer NVIDIA driver: " + said;
    case cudnn_status::host_allocation_failed:
    case cudnn_status::device_allocation_failed:
      return name + " finds no memory to start with: " + said;
    default:
      return name + " does not start: " + said;
  }
}

}  // namespace gm
