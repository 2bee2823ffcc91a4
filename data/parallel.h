// Independent pieces of work on a few threads.
#pragma once
#include <cstdint>
#include <functional>

namespace gm {

/// Threads to use when a user does not say: one per processor that the process may use, at most 16.
int default_workers();

/// Calls fn(i) for i in [0, n), each once, on up to `workers` threads (0: default_workers()); returns when
/// all are done. When calls throw, the rest are left out and the exception of the lowest i among those that
/// ran is rethrown.
void parallel_for(int64_t n, int workers, const std::function<void(int64_t)>& fn);

}  // namespace gm
