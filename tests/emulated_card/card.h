// The emulated cards: their memory, their streams and what is queued in them. Private to the functions that
// take the place of the CUDA runtime and of its libraries. Work is run when somebody waits for it and not
// before: by cudaStreamSynchronize, by a blocking copy, by cudaFree. A wait runs its own stream as far as
// it has to and of the others only what events demand, so that an order that nobody asked for does not come
// about by luck. With GM_EMULATED_ORDER=others the opposite: all other streams first, which shows writes
// that come too early.
#pragma once
#include <cuda_runtime_api.h>

#include <chrono>
#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "tests/emulated_card/faults.h"
#include "tests/emulated_card/ptx_machine.h"

namespace gm::emulated {

/// A place in a stream that others may wait for.
struct Mark {
  std::shared_ptr<CUstream_st> stream;
  bool reached = false;
  std::chrono::steady_clock::time_point when;
};

/// One entry of a stream: waits, then acts, then tells. What it does throws where a kernel would fail.
struct Work {
  std::function<void()> act;
  std::shared_ptr<Mark> wait, reach;
};

/// The same in a graph; `after` are the numbers of the nodes before it.
struct Node {
  std::function<void()> act;
  std::vector<size_t> after;
};

struct Capture {
  CUstream_st* origin = nullptr;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id thread;
  std::vector<Node> nodes;
  bool invalid = false;
};

}  // namespace gm::emulated

// The runtime's handles point at these.
struct CUstream_st {
  int card = 0;
  bool blocking = true;  // waits for the legacy stream, and that for it
  std::deque<gm::emulated::Work> queue;
  std::shared_ptr<gm::emulated::Capture> capture;
  std::vector<size_t> after;  // in a capture: what the next node comes after
};
struct CUevent_st {
  int card = 0;
  bool timing = true;
  std::shared_ptr<gm::emulated::Mark> mark;  // null until it is recorded
  std::shared_ptr<gm::emulated::Capture> capture;
  std::vector<size_t> after;
};
struct CUgraph_st {
  std::vector<gm::emulated::Node> nodes;
};
struct CUgraphExec_st {
  std::shared_ptr<const std::vector<std::function<void()>>> work;  // in the order in which it is run
};

namespace gm::emulated {

/// All cards of the machine; what does not name one means the one that the calling thread has selected.
/// Everything but mutex() is called with the mutex held.
class Card {
 public:
  static constexpr size_t kSharedPerBlock = 48 << 10, kSharedOptIn = 163 << 10,
                          kSharedPerProcessor = 164 << 10;
  static constexpr int kThreadsPerProcessor = 2048, kRegisters = 65536, kRegistersPerThread = 64;

  static Card& instance();
  std::mutex& mutex() { return mutex_; }

  int count() const { return static_cast<int>(boards_.size()); }
  /// The card of the calling thread.
  int selected() const;
  bool select(int card);
  /// 80 of sm_80.
  int capability(int card) const { return boards_[static_cast<size_t>(card)].capability; }
  int processors() const { return processors_; }
  size_t memory_bytes(int card) const { return boards_[static_cast<size_t>(card)].memory_bytes; }

  // ---- memory
  size_t memory_bytes() const { return board().memory_bytes; }
  size_t used_bytes() const { return board().used; }
  /// Memory of the card, or page-locked memory of the host, which kernels must not touch here.
  void* allocate(size_t bytes);
  bool release(void* data);
  void* lock_pages(size_t bytes);
  bool unlock_pages(void* data);
  const Memory& global(int card) const { return boards_[static_cast<size_t>(card)].global; }
  /// Whether a card, any of them, has these bytes.
  bool holds(uintptr_t address, size_t bytes) const;
  const Memory& page_locked() const { return page_locked_; }

  // ---- streams
  cudaStream_t make_stream(bool blocking);
  /// Null where the handle is of no stream; 0 is the legacy stream.
  std::shared_ptr<CUstream_st> find(cudaStream_t handle) const;
  /// What it holds is still run, as on a real card, when all are waited for.
  void forget(cudaStream_t handle);
  cudaEvent_t make_event(bool timing);
  bool known(cudaEvent_t event) const { return events_.count(event) > 0; }
  bool forget(cudaEvent_t event);

  /// Queues or, in a capture, records it.
  cudaError_t submit(cudaStream_t handle, std::function<void()> act);
  cudaError_t record(cudaEvent_t event, cudaStream_t handle);
  cudaError_t wait(cudaStream_t handle, cudaEvent_t event);
  /// Runs what has to be run; these return the card's error.
  cudaError_t finish(const std::shared_ptr<CUstream_st>& stream);
  cudaError_t finish(const std::shared_ptr<Mark>& mark);
  /// All streams of a card.
  cudaError_t finish_all(int card);
  /// The card around an address; -1: none.
  int card_of(const void* data) const;

  // ---- captures
  cudaError_t begin_capture(cudaStream_t handle, cudaStreamCaptureMode mode);
  cudaError_t end_capture(cudaStream_t handle, cudaGraph_t* graph);
  /// For calls that a capture forbids to its thread: an error where one is going on, which it spoils.
  cudaError_t forbidden_in_capture();
  /// The same for what waits for all streams, whoever captures one.
  cudaError_t forbidden_in_any_capture();

  /// The error after which nothing runs any more; cudaSuccess while there is none.
  cudaError_t broken() const { return board().broken; }

  // ---- faults (faults.h)
  void restart();
  Held held() const;
  int64_t calls(const std::string& function) const;
  /// Counts a call; an error where it is the one to be refused.
  cudaError_t called(const char* function);
  /// Counts a kernel that runs; throws where it is the one to fail.
  void kernel_runs();
  void graphs_changed(int by) { graphs_ += by; }

 private:
  struct Board {
    int capability = 0;
    size_t memory_bytes = 0, used = 0;
    Memory global;
    std::shared_ptr<CUstream_st> legacy;
    cudaError_t broken = cudaSuccess;
  };

  Card() { read_environment(); }
  void read_environment();
  Board& board() { return boards_[static_cast<size_t>(selected())]; }
  const Board& board() const { return boards_[static_cast<size_t>(selected())]; }
  void run(CUstream_st& stream, const Mark* until);
  void run_others(const CUstream_st& but);
  void act(const std::function<void()>& what, Board& on);
  std::shared_ptr<Mark> mark(const std::shared_ptr<CUstream_st>& stream);

  std::mutex mutex_;
  std::vector<Board> boards_;
  size_t page_locked_bytes_ = 0;  // still to be had
  int processors_ = 0;
  bool others_first_ = false, refuses_capture_ = false;
  Memory page_locked_;
  std::unordered_map<void*, void*> starts_;  // of allocations: where malloc's memory begins
  std::vector<std::shared_ptr<CUstream_st>> streams_, closed_;
  std::unordered_map<cudaEvent_t, std::unique_ptr<CUevent_st>> events_;
  std::vector<std::weak_ptr<Capture>> captures_;
  int graphs_ = 0;                            // that can be started
  std::map<std::string, int64_t> calls_;      // of each function
  std::string refused_;                       // the function that fails once, ...
  int64_t refused_call_ = 0;                  // ... when it is called for this time, and ...
  int64_t failing_kernel_ = 0, kernels_ = 0;  // ... the kernel that fails
};

/// True in a function of cudaLaunchHostFunc, which must not call the runtime.
bool in_host_function();

/// Notes an error for cudaGetLastError of this thread.
cudaError_t noted(cudaError_t status);
/// Says what is wrong with a call, where a program cannot have meant it.
cudaError_t complain(cudaError_t status, const std::string& what);

/// What every function of the runtime does first; `name` is the caller's.
template <class Function>
cudaError_t with_card(Function&& function, const char* name = __builtin_FUNCTION()) {
  if (in_host_function()) return noted(cudaErrorNotPermitted);
  Card& card = Card::instance();
  std::lock_guard<std::mutex> lock(card.mutex());
  if (card.count() == 0) return noted(cudaErrorNoDevice);
  if (card.broken() != cudaSuccess) return noted(card.broken());
  if (const cudaError_t status = card.called(name); status != cudaSuccess) return noted(status);
  return noted(function(card));
}

}  // namespace gm::emulated
