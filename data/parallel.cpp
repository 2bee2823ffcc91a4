#include "data/parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "kernels/common/parallel.h"

namespace gm {

int default_workers() { return std::clamp(available_processors(), 1, 16); }

void parallel_for(int64_t n, int workers, const std::function<void(int64_t)>& fn) {
  if (workers <= 0) workers = default_workers();
  std::atomic<int64_t> next{0};
  std::mutex mutex;
  std::exception_ptr error;
  int64_t error_at = n;
  auto work = [&] {
    for (int64_t i; (i = next++) < n;) {
      try {
        fn(i);
      } catch (...) {
        std::lock_guard<std::mutex> lock(mutex);
        if (i < error_at) error_at = i, error = std::current_exception();
        next = n;
      }
    }
  };
  std::vector<std::thread> threads;
  try {
    for (int64_t t = 1; t < std::min<int64_t>(workers, n); ++t) threads.emplace_back(work);
  } catch (const std::system_error&) {  // a limit on processes: fewer will do
  }
  work();
  for (std::thread& thread : threads) thread.join();
  if (error) std::rethrow_exception(error);
}

}  // namespace gm
