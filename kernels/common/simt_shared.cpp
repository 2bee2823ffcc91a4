// Shared memory of the running block: exact sizes, poison, limits.
#include <cstring>
#include <new>
#include <utility>

#include "kernels/common/simt_machine.h"

namespace gm::simt {
namespace {

#if defined(GM_SIMT_ASAN)
constexpr size_t kCanary = 0;  // redzones report the very store that overruns
#else
constexpr size_t kCanary = 64;
#endif
constexpr unsigned char kPoison = 0xFF, kCanaryByte = 0xA5;

}  // namespace

void* Machine::allocate_shared(const char* name, size_t bytes, size_t alignment) {
  if (name) shared_bytes_ += bytes;
  const size_t limit = dynamic_bytes_ > kUnaskedShared ? kSharedOptInLimit : kSharedLimit;
  if (shared_bytes_ > limit)
    fault(std::to_string(shared_bytes_) + " bytes of static and dynamic shared memory, the limit is " +
          std::to_string(limit));
  alignment = std::max<size_t>(alignment, 16);
  auto* p = static_cast<unsigned char*>(::operator new (bytes + kCanary, std::align_val_t{alignment}));
  std::memset(p, kPoison, bytes);
  std::memset(p + bytes, kCanaryByte, kCanary);
  shared_.push_back({name ? name : "dynamic", p, bytes, alignment});
  return p;
}

void* Machine::shared_dynamic() {
  if (!dynamic_) dynamic_ = allocate_shared(nullptr, dynamic_bytes_, 16);
  return dynamic_;
}

void Machine::free_shared() {
  std::string overrun;
  for (const SharedBlock& s : shared_) {
    for (size_t i = 0; i < kCanary; ++i)
      if (s.data[s.bytes + i] != kCanaryByte)
        overrun =
            "shared array '" + s.name + "' of " + std::to_string(s.bytes) + " bytes was written past its end";
    ::operator delete (s.data, std::align_val_t{s.alignment});
  }
  shared_.clear();
  current_ = nullptr;
  if (!overrun.empty()) fault(overrun);
}

bool Machine::moment(const void* p, Moment* now) const {
  if (!in_kernel_code_ || current_->fiber->owns(p)) return false;
  const unsigned i = number(*current_);
  *now = {phase_, warps_[i / 32].phase, i};
  return true;
}

void Machine::note_race(const void* p, unsigned other_thread, bool other_wrote, bool writes) {
  const Aside aside(*this);
  if (!race_.empty()) return;
  std::string place = "global memory";
  for (const SharedBlock& s : shared_)
    if (p >= s.data && p < s.data + s.bytes)
      place = "shared array '" + s.name + "' at byte " +
              std::to_string(static_cast<const unsigned char*>(p) - s.data);
  race_ = "race on " + place + ": thread " + str(threads_[other_thread].index) +
          (other_wrote ? " wrote" : " read") + " and thread " + str(current_->index) +
          (writes ? " writes" : " reads") + " with no barrier between";
}

void Machine::check_race_found() {
  current_ = nullptr;
  if (!race_.empty()) fault(std::exchange(race_, {}));
}

}  // namespace gm::simt
