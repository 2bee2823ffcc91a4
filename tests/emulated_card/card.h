// The emulated card: its memory, its streams and what is queued in them. Private to the functions that take
// the place of the CUDA runtime and of its libraries. Work is run when somebody waits for it and not before:
// by cudaStreamSynchronize, by a blocking copy, by cudaFree. A wait runs its own stream as far as it has to
// and of the others only what events demand, so that an order that nobody asked for does not come about by
// luck. With GM_EMULATED_ORDER=others the opposite: all other streams first, which shows writes that come too
// early.
#pragma once
#include <cuda_runtime_api.h>

#include <chrono>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

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
  bool blocking = true;  // waits for the legacy stream, and that for it
  std::deque<gm::emulated::Work> queue;
  std::shared_ptr<gm::emulated::Capture> capture;
  std::vector<size_t> after;  // in a capture: what the next node comes after
};
struct CUevent_st {
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

/// Everything but mutex() and last_error() is called with the mutex held.
class Card {
 public:
  static constexpr size_t kSharedPerBlock = 48 << 10, kSharedOptIn = 163 << 10,
                          kSharedPerProcessor = 164 << 10;
  static constexpr int kThreadsPerProcessor = 2048, kRegisters = 65536, kRegistersPerThread = 64;

  static Card& instance();
  /// False with GM_EMULATED_CARDS=0: a machine without one.
  static bool present();
  std::mutex& mutex() { return mutex_; }

  // ---- memory
  size_t memory_bytes() const { return memory_bytes_; }
  size_t used_bytes() const { return used_; }
  int processors() const { return processors_; }
  /// Memory of the card, or page-locked memory of the host, which kernels must not touch here.
  void* allocate(size_t bytes);
  bool release(void* data);
  void* lock_pages(size_t bytes);
  bool unlock_pages(void* data);
  const Memory& global() const { return global_; }
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
  cudaError_t finish_all();

  // ---- captures
  cudaError_t begin_capture(cudaStream_t handle, cudaStreamCaptureMode mode);
  cudaError_t end_capture(cudaStream_t handle, cudaGraph_t* graph);
  /// For calls that a capture forbids to its thread: an error where one is going on, which it spoils.
  cudaError_t forbidden_in_capture();
  /// The same for what waits for all streams, whoever captures one.
  cudaError_t forbidden_in_any_capture();

  /// The error after which nothing runs any more; cudaSuccess while there is none.
  cudaError_t broken() const { return broken_; }

 private:
  Card();
  void run(CUstream_st& stream, const Mark* until);
  void run_others(const CUstream_st& but);
  void act(const std::function<void()>& what);
  std::shared_ptr<Mark> mark(const std::shared_ptr<CUstream_st>& stream);

  std::mutex mutex_;
  size_t memory_bytes_ = 0, used_ = 0, page_locked_bytes_ = 0;  // the last: still to be had
  int processors_ = 0;
  bool others_first_ = false, refuses_capture_ = false;
  Memory global_, page_locked_;
  std::unordered_map<void*, void*> starts_;  // of allocations: where malloc's memory begins
  std::shared_ptr<CUstream_st> legacy_;
  std::vector<std::shared_ptr<CUstream_st>> streams_, closed_;
  std::unordered_map<cudaEvent_t, std::unique_ptr<CUevent_st>> events_;
  std::vector<std::weak_ptr<Capture>> captures_;
  cudaError_t broken_ = cudaSuccess;
};

/// True in a function of cudaLaunchHostFunc, which must not call the runtime.
bool in_host_function();

/// Notes an error for cudaGetLastError of this thread.
cudaError_t noted(cudaError_t status);
/// Says what is wrong with a call, where a program cannot have meant it.
cudaError_t complain(cudaError_t status, const std::string& what);

/// What every function of the runtime does first.
template <class Function>
cudaError_t with_card(Function&& function) {
  if (in_host_function()) return noted(cudaErrorNotPermitted);
  Card& card = Card::instance();
  std::lock_guard<std::mutex> lock(card.mutex());
  if (card.broken() != cudaSuccess) return noted(card.broken());
  return noted(function(card));
}

}  // namespace gm::emulated
