#include "tests/emulated_card/faults.h"

#include <mutex>
#include <stdexcept>

#include "tests/emulated_card/card.h"

namespace gm::emulated {

Held Card::held() const {
  Held all{.page_locked = page_locked_.starts().size(),
           .streams = streams_.size(),
           .events = events_.size(),
           .graphs = graphs_};
  for (const Board& board : boards_) all.bytes += board.global.starts().size();
  for (const auto& capture : captures_) all.captures += !capture.expired();
  return all;
}

int64_t Card::calls(const std::string& function) const {
  if (function == "kernels") return kernels_;
  const auto found = calls_.find(function);
  return found == calls_.end() ? 0 : found->second;
}

cudaError_t Card::called(const char* function) {
  const int64_t call = ++calls_[function];
  if (function != refused_ || call != refused_call_) return cudaSuccess;
  return refused_.starts_with("cudaMalloc") ? cudaErrorMemoryAllocation : cudaErrorUnknown;
}

void Card::kernel_runs() {
  if (++kernels_ == failing_kernel_) throw std::runtime_error("the kernel that was to fail");
}

Held held() {
  Card& card = Card::instance();
  std::lock_guard<std::mutex> lock(card.mutex());
  return card.held();
}
int64_t calls(const std::string& function) {
  Card& card = Card::instance();
  std::lock_guard<std::mutex> lock(card.mutex());
  return card.calls(function);
}
void restart() {
  Card& card = Card::instance();
  std::lock_guard<std::mutex> lock(card.mutex());
  card.restart();
}

}  // namespace gm::emulated
