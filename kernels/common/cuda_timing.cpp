#include "kernels/common/cuda_timing.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <limits>
#include <string>

#include "kernels/common/error.h"

namespace gm {

namespace {

void check(cudaError_t status) {
  if (status != cudaSuccess) fail(std::string("timing of kernels: ") + cudaGetErrorString(status));
}

/// An event, destroyed with its owner, also where that does not come to be.
struct Mark {
  Mark() { check(cudaEventCreate(&event)); }
  ~Mark() { cudaEventDestroy(event); }
  Mark(const Mark&) = delete;
  Mark& operator=(const Mark&) = delete;
  cudaEvent_t event = nullptr;
};

/// Keeps a stream waiting while the host submits what is to be timed: kernels that take less than their
/// submission then follow one another as they do in a captured graph. Ten milliseconds at most, so that a
/// call which waits for the stream is measured late instead of never.
class Hold {
 public:
  explicit Hold(cudaStream_t stream) : stream_(stream) { check(cudaLaunchHostFunc(stream, wait, this)); }
  ~Hold() {
    release();
    cudaStreamSynchronize(stream_);  // wait() reads this object
  }
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;

  void release() {
    if (!released_) go_.set_value();
    released_ = true;
  }

 private:
  static void wait(void* hold) { static_cast<Hold*>(hold)->gone_.wait_for(std::chrono::milliseconds(10)); }

  cudaStream_t stream_;
  std::promise<void> go_;
  std::future<void> gone_ = go_.get_future();
  bool released_ = false;
};

class Clock {
 public:
  explicit Clock(cudaStream_t stream) : stream_(stream) {}

  /// Seconds a run, infinite when one is refused.
  double time(int runs, const std::function<bool()>& start) {
    Hold hold(stream_);
    check(cudaEventRecord(marks_[0].event, stream_));
    bool all = true;
    for (int i = 0; i < runs && all; ++i) all = start();
    check(cudaEventRecord(marks_[1].event, stream_));
    hold.release();
    check(cudaEventSynchronize(marks_[1].event));
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, marks_[0].event, marks_[1].event));
    return all ? 1e-3 * milliseconds / runs : std::numeric_limits<double>::infinity();
  }

 private:
  cudaStream_t stream_;
  Mark marks_[2];
};

}  // namespace

CudaScratch::CudaScratch(size_t bytes) {
  if (bytes && cudaMalloc(&data_, bytes) != cudaSuccess) {
    data_ = nullptr;
    cudaGetLastError();  // out of memory is not sticky: clear it
  }
}
CudaScratch::~CudaScratch() { cudaFree(data_); }

std::vector<double> time_candidates(void* stream, size_t count, const std::function<bool(size_t)>& start) {
  constexpr double kRound = 200e-6;  // seconds of runs in a row
  constexpr int kRounds = 5;
  Clock clock(static_cast<cudaStream_t>(stream));
  std::vector<double> seconds(count, std::numeric_limits<double>::infinity());
  for (size_t i = 0; i < count; ++i)
    if (start(i))
      seconds[i] = clock.time(1, [&] { return start(i); });
    else
      cudaGetLastError();  // a launch that was refused leaves its error behind
  // Candidates take turns, so that a change of the clock rate meets all of them alike.
  for (int round = 0; round < kRounds; ++round) {
    const double best = *std::min_element(seconds.begin(), seconds.end());
    for (size_t i = 0; i < count; ++i) {
      if (!(seconds[i] <= 1.5 * best)) continue;  // out of the race
      const int runs = std::clamp(static_cast<int>(kRound / seconds[i]), 1, 40);
      seconds[i] = std::min(seconds[i], clock.time(runs, [&] { return start(i); }));
    }
  }
  return seconds;
}

}  // namespace gm
