// The CPU backend's own threads. Libraries called from inside a task run single-threaded, so that no second
// team of threads fights for the same cores.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

namespace gm {

class ThreadPool {
 public:
  /// threads <= 0: as many as the process may use (its affinity mask).
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const;
  /// Calls task(i, thread) for i in [0, count); i's are handed out dynamically, thread in [0, threads()).
  /// Results must not depend on which thread ran a task. Not reentrant. The first exception is rethrown.
  void run(int64_t count, const std::function<void(int64_t, int)>& task);
  /// Splits [0, total) into pieces of at least `grain` items and calls body(begin, end, thread).
  void ranges(int64_t total, int64_t grain, const std::function<void(int64_t, int64_t, int)>& body);
  /// Scratch memory of one thread, 64-byte aligned, kept between calls (grows only). Slots keep the buffers
  /// of nested users apart (0..3).
  void* scratch(int thread, size_t bytes, int slot = 0);
  /// Bytes held by all scratch buffers: part of the printed memory budget.
  size_t scratch_bytes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Number of processors this process may run on.
int available_processors();

}  // namespace gm
