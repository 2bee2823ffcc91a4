#include "kernels/common/parallel.h"

#include <sched.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/common/ceil_div.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace gm {

int available_processors() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

namespace {
struct Scratch {
  void* data = nullptr;
  size_t bytes = 0;
};
void pause() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}
}  // namespace

struct ThreadPool::Impl {
  int threads = 1;
  std::vector<std::thread> workers;
  std::vector<std::array<Scratch, 4>> scratch;

  // One job at a time. `generation` announces it; workers report back through `working`.
  std::atomic<uint32_t> generation{0};
  std::atomic<int> working{0};
  std::atomic<int64_t> next{0};
  std::atomic<bool> stop{false};
  int64_t count = 0;
  const std::function<void(int64_t, int)>* task = nullptr;
  std::mutex error_mutex;
  std::exception_ptr error;

  void work(int thread) {
    try {
      for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) (*task)(i, thread);
    } catch (...) {
      std::lock_guard lock(error_mutex);
      if (!error) error = std::current_exception();
      next.store(count, std::memory_order_relaxed);
    }
  }

  // Spins briefly (an op follows the last one within microseconds), then sleeps: a spinning thread that
  // shares its core with the data loader would only slow it down.
  void loop(int thread) {
    uint32_t seen = 0;
    for (;;) {
      for (int spin = 0; spin < 2000 && generation.load(std::memory_order_acquire) == seen; ++spin) pause();
      generation.wait(seen, std::memory_order_acquire);
      seen = generation.load(std::memory_order_acquire);
      if (stop.load(std::memory_order_relaxed)) return;
      work(thread);
      if (working.fetch_sub(1, std::memory_order_acq_rel) == 1) working.notify_one();
    }
  }
};

ThreadPool::ThreadPool(int threads) : impl_(std::make_unique<Impl>()) {
  impl_->threads = threads > 0 ? threads : available_processors();
  impl_->scratch.resize(impl_->threads);
  try {
    for (int t = 1; t < impl_->threads; ++t) impl_->workers.emplace_back([this, t] { impl_->loop(t); });
  } catch (const std::system_error&) {  // a limit on processes: results do not depend on how many there are
    impl_->threads = static_cast<int>(impl_->workers.size()) + 1;
  }
}

ThreadPool::~ThreadPool() {
  impl_->stop = true;
  impl_->generation.fetch_add(1, std::memory_order_release);
  impl_->generation.notify_all();
  for (auto& w : impl_->workers) w.join();
  for (auto& slots : impl_->scratch)
    for (auto& s : slots) ::operator delete(s.data, std::align_val_t(64));
}

int ThreadPool::threads() const { return impl_->threads; }

void ThreadPool::run(int64_t count, const std::function<void(int64_t, int)>& task) {
  if (count <= 0) return;
  Impl& p = *impl_;
  if (p.threads == 1 || count == 1) {
    for (int64_t i = 0; i < count; ++i) task(i, 0);
    return;
  }
  p.count = count;
  p.task = &task;
  p.next.store(0, std::memory_order_relaxed);
  p.working.store(p.threads - 1, std::memory_order_relaxed);
  p.generation.fetch_add(1, std::memory_order_release);
  p.generation.notify_all();
  p.work(0);
  for (int spin = 0; spin < 4000 && p.working.load(std::memory_order_acquire) != 0; ++spin) pause();
  for (int left; (left = p.working.load(std::memory_order_acquire)) != 0;) p.working.wait(left);
  if (p.error) std::rethrow_exception(std::exchange(p.error, nullptr));
}

void ThreadPool::ranges(int64_t total, int64_t grain,
                        const std::function<void(int64_t, int64_t, int)>& body) {
  if (total <= 0) return;
  grain = std::max<int64_t>(1, grain);
  // A few pieces per thread even out a busy neighbour core without drowning in hand-outs.
  int64_t pieces = std::min(ceil_div(total, grain), int64_t{4} * impl_->threads);
  run(pieces, [&](int64_t i, int thread) { body(total * i / pieces, total * (i + 1) / pieces, thread); });
}

void* ThreadPool::scratch(int thread, size_t bytes, int slot) {
  Scratch& s = impl_->scratch[thread][slot];
  if (s.bytes < bytes) {
    ::operator delete(s.data, std::align_val_t(64));
    s.data = nullptr;
    s.bytes = 0;
    s.data = ::operator new(bytes, std::align_val_t(64));
    s.bytes = bytes;
  }
  return s.data;
}

size_t ThreadPool::scratch_bytes() const {
  size_t total = 0;
  for (const auto& slots : impl_->scratch)
    for (const auto& s : slots) total += s.bytes;
  return total;
}

}  // namespace gm
